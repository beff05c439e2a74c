"""Secrets go, code stays."""

import pytest

from contextrl_verl.pairs.redact import redact, redact_messages
from data_prep.trajectories.run import Message

LETTERS = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0"

# Put together here so that no scanner takes this file for a leak.
SECRETS = {
    "OpenAI": ("token", "sk-" + LETTERS),
    "project key": ("token", "sk-" + "proj-" + LETTERS),
    "GitHub": ("token", "ghp" + "_" + LETTERS[:36]),
    "GitHub fine": ("token", "github" + "_pat_" + LETTERS + LETTERS),
    "GitLab": ("token", "glpat" + "-" + LETTERS[:20]),
    "Hugging Face": ("token", "hf" + "_" + LETTERS[:34]),
    "AWS": ("token", "AKIA" + "ABCDEFGHIJKLMNO2"),
    "Google": ("token", "AIza" + LETTERS[:35]),
    "Slack": ("token", "xox" + "b-123456789012-" + LETTERS[:24]),
    "JWT": ("jwt", "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0." + LETTERS),
    "private key": (
        "private-key",
        "-----BEGIN RSA PRIVATE " + "KEY-----\nMIIEow\nIBAAKCAQEA\n-----END RSA PRIVATE " + "KEY-----",
    ),
    "private key cut off": ("private-key", "-----BEGIN PRIVATE " + "KEY-----\nMIIEow\nIBAAKCAQEA"),
    "e-mail": ("email", "jane.q-doe+lists@mail.acme-corp.co.uk"),
}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("around", ["{}", "key = '{}'", "see <{}>, then", "line\n{}\nline", '{{"k": "{}"}}'])
def test_secrets_go(name, around):
    kind, secret = SECRETS[name]
    text = redact(around.format(secret))
    if name == "private key cut off" and around != "{}":
        assert secret not in text
        return
    assert text == around.format(f"<REDACTED:{kind}>")


PARTLY = {
    "Authorization: Bearer " + LETTERS: "Authorization: Bearer <REDACTED:authorization>",
    "-H 'authorization: token " + LETTERS + "'": "-H 'authorization: token <REDACTED:authorization>'",
    "password = 'hunter2-3xyz'": "password = '<REDACTED:password>'",
    'DB_PASSWORD: "q8rT0zzu"': 'DB_PASSWORD: "<REDACTED:password>"',
    "export API_KEY=q8rT0zzu91": "export API_KEY=<REDACTED:password>",
    "postgres://joe:q8rT0zzu@db.acme.io/x": "postgres://joe:<REDACTED:password>@db.acme.io/x",
    "/home/jdoe/src/x.py": "/home/<REDACTED:home>/src/x.py",
    "/Users/jane.doe/x": "/Users/<REDACTED:home>/x",
    r"C:\Users\Jane\x.py": r"C:\Users\<REDACTED:home>\x.py",
    r"'C:\\Users\\Jane\\x.py'": r"'C:\\Users\\<REDACTED:home>\\x.py'",
}


@pytest.mark.parametrize("text", PARTLY)
def test_only_the_secret_part_goes(text):
    assert redact(text) == PARTLY[text]


CODE = [
    "@app.route('/login')\ndef login(user): ...",
    "@pytest.mark.parametrize('a', [1])",
    "x = a@b.T + c @ d.transpose(0, 1)",
    "git clone git@github.com:owner/name.git",
    "ssh git@gitlab.acme.io and hg@code.acme.io, then",
    "sprite@2x.png and pkg@1.2.3 and user@example.com and a@localhost",
    "password = form.cleaned_data['password']",
    "User.objects.create_user('joe', password='password')",
    "SECRET_KEY = 'django-tests-secret-key-0'",
    "login(username=username, password=password)",
    "token=self.get_token(request), api_key=os.environ['KEY1']",
    "password='%s' % value, passwd='{0}'",
    "task-management-for-several-people-in-one-room skip-sk-learn",
    "disk-0123456789abcdefghij_partition",
    "https://docs.python.org:8080/a@b and http://localhost:8000/",
    "'$HOME/x', '~/x', '/home/', 'path/home/page', '/home/user/x', resolve('/usershome/x')",
    "hf_hub_download(repo_id) and sk_learn and xoxo and eyJ",
]


@pytest.mark.parametrize("text", CODE)
def test_code_stays(text):
    assert redact(text) == text


def test_twice_is_once_and_all_turns_are_redacted():
    messages = [Message(role="user", content=secret) for _, secret in SECRETS.values()]
    messages += [Message(role="assistant", content=text) for text in [*PARTLY, *CODE]]
    cleaned = redact_messages(messages)
    assert [message.content for message in cleaned] == [redact(message.content) for message in messages]
    assert [message.role for message in cleaned] == [message.role for message in messages]
    assert redact_messages(cleaned) == cleaned


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        *[
            "a@" * 300_000,
            "a." * 300_000 + "@",
            "password='" * 60_000,
            "sk-" + "a-" * 300_000,
            "eyJ" * 100_000 + ".eyJ.",
        ],
        *["://a:" * 100_000, "-----BEGIN " + "PRIVATE KEY-----" * 20_000, "/home/" * 100_000, "a" * 600_000 + "@b.com"],
    ],
    ids=lambda text: text[:10],
)
def test_hostile_text_ends(text):
    redact(text)
