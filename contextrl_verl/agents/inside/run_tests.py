"""Runs a repository's tests with pytest and signs what came out. Runs in the box, as `python -c`, Python 3.6 or newer.

Standard input: {"key", "arguments", "files", "plugins", "paths"}; the first argument names the report, a JSON object of
``signed`` (JSON text: outcome by test id) and its ``signature``. The key is in no file, argument or variable of the
environment, and the report is written after the last test and before anything that the tested code left for the end of
the process. Code under test that searches this process for the key finds it all the same: pytest runs both in one.
"""

import hashlib
import hmac
import json
import os
import sys

import pytest


def reporter(outcomes):
    """A plugin that notes in ``outcomes`` how each test ended: passed, failed, skipped, xfail."""
    expected_to_fail = set()

    class Reporter:
        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, items):
            # What is marked before the first test runs. pytest.xfail() in the code under test would pass any test.
            for item in items:
                unittests = getattr(getattr(item, "obj", None), "__unittest_expecting_failure__", False)
                if unittests or item.get_closest_marker("xfail"):
                    expected_to_fail.add(item.nodeid)

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_logreport(self, report):
            outcome = report.outcome
            if outcome == "skipped" and hasattr(report, "wasxfail"):
                outcome = "xfail" if report.nodeid in expected_to_fail else "failed"
            if report.when == "call" or outcome != "passed":
                # A set-up or a clean-up that fails is worth more than what the test itself did.
                if outcomes.get(report.nodeid) in (None, "passed"):
                    outcomes[report.nodeid] = outcome

    return Reporter()


def main(path):
    given = json.load(sys.stdin)
    key, sign, text, leave = bytes.fromhex(given["key"]), hmac.new, json.dumps, os._exit
    outcomes = {}
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.path[:0] = [os.getcwd()] + given["paths"]
    files = [file for file in given["files"] if os.path.exists(file)]
    plugins = [part for name in given["plugins"] for part in ("-p", name)]
    pytest.main(plugins + given["arguments"] + files, plugins=[reporter(outcomes)])
    signed = text(outcomes)
    signature = sign(key, signed.encode(), hashlib.sha256).hexdigest()
    os.write(target, text({"signed": signed, "signature": signature}).encode())
    leave(0)


if __name__ == "__main__":
    main(sys.argv[1])
