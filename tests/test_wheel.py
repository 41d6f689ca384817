from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*.yaml"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))


def test_the_wheel_holds_package_and_configs_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert sorted(name for name in names if name.endswith(".yaml")) == [f"zoo/{name}" for name in CONFIGS]
    assert {name.split("/")[0] for name in names} == {"zoo", wheel.name.split("-py3")[0] + ".dist-info"}
    assert not [name for name in names if "__pycache__" in name]
    packaged = {"zoo/evaluation/report.html.j2", "zoo/vocabularies/clevr.json", "zoo/class_lists/camvid11.csv"}
    assert packaged <= set(names)


def test_an_editable_install_gets_no_copy_of_the_configs(tmp_path):
    included = {}
    for version in ("standard", "editable"):
        data = {"force_include": {}}
        for hook in WheelBuilder(str(ROOT)).get_build_hooks(str(tmp_path)).values():
            hook.initialize(version, data)
        included[version] = data["force_include"]
    assert included == {"standard": {str(ROOT / "conf"): "zoo/conf"}, "editable": {}}


def test_an_unpacked_wheel_reads_its_own_configs(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    script = (
        "from zoo import config, list_models; print(config.conf_dir(), config.description('model', 'two_stage_rn'))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{tmp_path.resolve() / 'zoo' / 'conf'} Relation Network")


def test_constraints_hold_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert len(lines) > 50
    assert [line for line in lines if "==" not in line or "://" in line or line.startswith("-")] == []
