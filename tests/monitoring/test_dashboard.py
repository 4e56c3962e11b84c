"""The dashboard's file: what Grafana would refuse or show wrongly, as far as that can be seen without Grafana."""

from __future__ import annotations

import itertools
import re

import pytest
import yaml

from tests.monitoring import deploy_files

DASHBOARD = deploy_files.dashboard()
PANELS = DASHBOARD["panels"]
PROVISIONING = deploy_files.GRAFANA / "provisioning"
WIDTH = 24
COLOURS = {"green", "orange", "red", "blue", "transparent"}
UNITS = {"none", "short", "cps", "s", "bytes", "percentunit"}


def read(path):
    return yaml.safe_load((PROVISIONING / path).read_text())


def title_of(panel):
    return panel["title"]


def test_ids_and_titles_are_unique():
    assert len({panel["id"] for panel in PANELS}) == len(PANELS) == len({title_of(panel) for panel in PANELS})
    for panel in PANELS:
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


def test_panels_fill_the_grid_and_do_not_overlap():
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in PANELS)
        for x, y in itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
    ]
    assert len(set(cells)) == len(cells), "panels overlap"
    assert max(x for x, _ in cells) < WIDTH
    assert len(cells) == WIDTH * (max(y for _, y in cells) + 1), "there are holes"


def test_the_top_row_says_whether_all_is_well():
    top = [panel for panel in PANELS if panel["gridPos"]["y"] == 0]
    assert {panel["type"] for panel in top} == {"stat"}
    assert title_of(top[0]) == "Status"
    assert all(panel["type"] == "timeseries" for panel in PANELS if panel not in top)


@pytest.mark.parametrize("panel", PANELS, ids=title_of)
def test_panel_is_complete(panel):
    defaults = panel["fieldConfig"]["defaults"]
    assert panel["description"]
    assert defaults["unit"] in UNITS
    steps = defaults["thresholds"]["steps"]
    assert {step["color"] for step in steps} <= COLOURS
    values = [step["value"] for step in steps]
    assert values[0] is None
    assert values[1:] == sorted(values[1:])
    assert all(target["legendFormat"] for target in panel["targets"]) or panel["type"] == "stat"


@pytest.mark.parametrize("panel", PANELS, ids=title_of)
def test_panel_asks_the_provisioned_datasource(panel):
    sources = [*read("datasources/prometheus.yml")["datasources"]]
    assert [source["uid"] for source in sources] == [panel["datasource"]["uid"]]
    assert [source["type"] for source in sources] == [panel["datasource"]["type"]]


@pytest.mark.parametrize("panel", PANELS, ids=title_of)
def test_colours_are_those_of_series_there_can_be(panel):
    literal = {target["legendFormat"] for target in panel["targets"] if "{{" not in target["legendFormat"]}
    templates = "".join(target["legendFormat"] for target in panel["targets"] if "{{" in target["legendFormat"])
    for override in panel["fieldConfig"]["overrides"]:
        assert override["matcher"]["id"] == "byName"
        assert override["matcher"]["options"] in literal or templates


def test_queries_are_about_the_chosen_servers():
    (variable,) = DASHBOARD["templating"]["list"]
    assert variable["name"] == "instance"
    assert variable["datasource"]["uid"] == read("datasources/prometheus.yml")["datasources"][0]["uid"]
    for query in deploy_files.queries():
        for selector in re.findall(r"layerwire_\w+(?::\w+)?\{[^}]*\}", query.expression):
            assert 'instance=~"$instance"' in selector, query.panel
        assert not re.search(r"layerwire_\w+(?!\w)(?![\w:{])", query.expression), f"{query.panel}: of all servers"
        assert set(re.findall(r"\$(\w+)", query.expression)) <= {"instance", "__rate_interval", "1"}


def test_rate_intervals_are_made_from_the_real_scrape_interval():
    (source,) = read("datasources/prometheus.yml")["datasources"]
    defaults = yaml.safe_load((deploy_files.PROMETHEUS / "prometheus.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == defaults["scrape_interval"]


def test_the_dashboard_lies_where_grafana_looks():
    (provider,) = read("dashboards/layerwire.yml")["providers"]
    compose = (deploy_files.DEPLOY.parent / "docker-compose.yml").read_text()
    mounts = dict(re.findall(r"- \./deploy/grafana/(\w+):([/\w]+):ro", compose))
    assert mounts["provisioning"] == "/etc/grafana/provisioning"
    assert mounts["dashboards"] == provider["options"]["path"]
    assert f"{provider['options']['path']}/layerwire.json" in compose


def test_colours_change_where_alerts_fire():
    """Thresholds of the top row repeat those of the alerts that read the same series."""
    alerts = deploy_files.alerts()
    last = {title_of(panel): panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"] for panel in PANELS}
    for panel, alert in (
        ("Failed", "LayerwireErrorRate"),
        ("Turned away", "LayerwireQueueSaturated"),
        ("Slowest p99", "LayerwireLatencyHigh"),
    ):
        bound = re.search(r"ratio_rate5m > ([\d.]+)|p99_rate5m > ([\d.]+)", alerts[alert]["expr"])
        assert bound is not None
        assert last[panel] == float(bound[1] or bound[2]), panel
