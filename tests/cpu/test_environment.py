import pytest

from contextrl_verl.patches.cpu.environment import AUTOLOAD, ENVIRONMENT, cpu_environment, cpu_selected


@pytest.mark.parametrize(
    ("value", "expected"), [("cpu", True), (" CPU ", True), ("", False), ("nvidia", False), ("cpux", False)]
)
def test_the_variable_is_read_as_verl_reads_it(value, expected):
    assert cpu_selected({"VERL_PLATFORM": value}) is expected


def test_no_variable_means_no_cpu():
    assert not cpu_selected({})


def test_defaults_fill_gaps_and_what_the_caller_set_stays():
    base = {"PATH": "/bin", "VLLM_CPU_KVCACHE_SPACE": "4", "HF_HUB_OFFLINE": "0"}
    environment = cpu_environment(base)
    assert environment == {**ENVIRONMENT, **base, "PYTHONPATH": AUTOLOAD}
    assert base == {"PATH": "/bin", "VLLM_CPU_KVCACHE_SPACE": "4", "HF_HUB_OFFLINE": "0"}


def test_the_platform_itself_is_not_negotiable():
    assert cpu_environment({"VERL_PLATFORM": "nvidia"})["VERL_PLATFORM"] == "cpu"


def test_what_the_path_held_stays_and_the_folder_is_in_it_once():
    once = cpu_environment({"PYTHONPATH": "/one:/two"})["PYTHONPATH"]
    assert once == f"{AUTOLOAD}:/one:/two" == cpu_environment({"PYTHONPATH": once})["PYTHONPATH"]


def test_the_current_environment_is_the_base(monkeypatch):
    monkeypatch.setenv("CONTEXTRL_TEST_VARIABLE", "kept")
    assert cpu_environment()["CONTEXTRL_TEST_VARIABLE"] == "kept"
