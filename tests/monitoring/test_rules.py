"""Prometheus' configuration, rules and alerts: promtool accepts them, its tests pass, the runbook has each."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from tests.monitoring import deploy_files

ALERTS = deploy_files.alerts()
TOPICS = ("**Means.**", "**Look at.**", "**Do.**")


def promtool_says(promtool, *arguments):
    result = subprocess.run([promtool, *arguments], capture_output=True, text=True, cwd=deploy_files.PROMETHEUS)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.debian
def test_promtool_accepts_the_configuration(promtool):
    output = promtool_says(promtool, "check", "config", "--lint=all", "--lint-fatal", "prometheus.yml")
    assert output.count("rules found") == len(list((deploy_files.PROMETHEUS / "rules").glob("*.yml")))


@pytest.mark.debian
@pytest.mark.parametrize("path", deploy_files.rule_tests(), ids=lambda path: path.stem)
def test_promtool_unit_tests_pass(promtool, path):
    assert "SUCCESS" in promtool_says(promtool, "test", "rules", str(path))


@pytest.mark.parametrize("name", ALERTS)
def test_alert_is_tested_firing_and_silent(name):
    tests = [
        case
        for path in deploy_files.rule_tests()
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test.get("alert_rule_test", [])
        if case["alertname"] == name
    ]
    assert any(test["exp_alerts"] for test in tests), "never tested firing"
    if "absent" in ALERTS[name]["expr"] or any(not test["exp_alerts"] for test in tests):
        return
    pytest.fail("never tested silent")


@pytest.mark.parametrize("name", ALERTS)
def test_alert_is_complete(name):
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"deploy/RUNBOOK.md#{name.lower()}"


def sections():
    """The runbook's sections by heading; GitHub's anchor is the heading in small letters."""
    parts = re.split(r"^## (.+)$", deploy_files.RUNBOOK.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_runbook_has_a_section_for_each_alert_and_for_no_other():
    assert [heading for heading in sections() if heading.startswith("Layerwire")] == list(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_section_says_what_it_means_what_to_look_at_and_what_to_do(name):
    text = sections()[name]
    places = [text.find(topic) for topic in TOPICS]
    assert -1 not in places
    assert places == sorted(places)
    assert "```promql\n" in text, "no query to look at"


def test_links_of_the_runbook_lead_somewhere():
    anchors = {heading.lower().replace(" ", "-") for heading in sections()}
    text = deploy_files.RUNBOOK.read_text()
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
    paths = re.findall(r"\]\((?!#)([^)#]+)\)", text)
    assert [path for path in paths if not (deploy_files.DEPLOY / path).exists()] == []


def test_the_job_is_the_one_that_rules_look_for():
    jobs = [
        job["job_name"]
        for job in yaml.safe_load((deploy_files.PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    ]
    names = {name for rule in deploy_files.rules() for name in re.findall(r'job="(\w+)"', rule["expr"])}
    assert jobs == ["layerwire"] == list(names)
