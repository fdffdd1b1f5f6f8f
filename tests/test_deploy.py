"""The folder of a deployment: what is in it, who may read it, and real processes made of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509 import verification
from flwr.cli.supernode.register import try_load_public_key
from flwr.supercore.constant import SQLITE_PRAGMAS
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from sqlalchemy import event, text
from sqlalchemy.pool import Pool

import conf
from parties.exchange import FedpactError
from parties.reuse.signing import is_signed, sign
from simulations.build import as_text, sha256
from simulations.deploy import writing
from simulations.deploy.__main__ import main
from simulations.deploy.bundle import write_bundle
from simulations.deploy.certificates import Authority
from simulations.deploy.layout import Deployment, FirmFolder, find_firm
from simulations.deploy.superlink import LOCKED_S, wait_for_locks
from simulations.deploy.writing import Place, write_deployment
from simulations.engines.flower_run import MARK
from simulations.study import Study, study_of
from tests.checks import SMALL_LOANS, config_of, write_own
from tests.federation import ROOT, federation

CONF = Path(conf.__file__).parent
FIRMS = ("lender_a", "lender_b")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    folder = tmp_path_factory.mktemp("deploy") / "d"
    place = Place(str(folder), "operator.example.org", 9192)
    write_deployment(config_of(*SMALL_LOANS), place)
    return Deployment(folder)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_role_gets_its_own_files_and_no_key_of_another(written: Deployment) -> None:
    assert files(written.operator.path) == {
        *("README.md", "study.json", "study.sha256", "ca.crt", "ca.key", "server.crt"),
        *("server.key", "sign.key", "sign.pub"),
        *(f"{kind}/{firm}.pub" for kind in ("nodes", "keys") for firm in FIRMS),
        *("app/pyproject.toml", "app/fedpact_server.py", "app/fedpact_client.py"),
        *("superlink.sh", "register.sh", "run.sh", "stop.sh"),
    }
    for firm, other in (FIRMS, reversed(FIRMS)):
        assert files(written.firm(firm).path) == {
            *("README.md", "firm.yaml", "study.json", "study.sha256", "ca.crt", "node.key"),
            *("node.pub", "sign.key", "sign.pub", "keys/operator.pub", f"keys/{other}.pub"),
            *("check.sh", "desk.sh", "supernode.sh", "stop.sh"),
        }
    beside = {"README.md", "compose.yaml", "Dockerfile", "study.json", "study.sha256"}
    beside |= {"place.json"}
    assert beside == {path.name for path in written.path.iterdir() if path.is_file()}


def test_only_their_owner_can_read_secrets_and_scripts_can_be_started(written: Deployment) -> None:
    secrets = list(written.path.glob("**/*.key"))
    assert len(secrets) == 3 + 2 * 2
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in secrets}
    scripts = [path for path in written.path.glob("**/*.sh") if "source" not in path.parts]
    assert len(scripts) == 4 + 2 * 4
    assert {0o755} == {stat.S_IMODE(path.stat().st_mode) for path in scripts}
    for script in scripts:
        subprocess.run(["sh", "-n", str(script)], check=True)


def test_the_study_is_the_same_for_everyone_and_its_digest_is_that_of_a_simulation(
    written: Deployment,
) -> None:
    text = as_text(config_of(*SMALL_LOANS, "study.settles=firms"))
    for part in (written, written.operator, *map(written.firm, FIRMS)):
        assert text == part.study.read_text()
        assert f"{sha256(text)}  study.json\n" == part.digest.read_text()
    tool = subprocess.run(
        ["sha256sum", "-c", "study.sha256"], cwd=written.path, capture_output=True, text=True
    )
    assert tool.stdout == "study.json: OK\n"
    assert study_of(json.loads(text)).names == FIRMS


def test_an_existing_folder_is_refused_and_left_alone(written: Deployment) -> None:
    before = written.operator.authority_key.read_bytes()
    with pytest.raises(FedpactError, match=r"which exists.*legal is a new folder.*mv "):
        write_deployment(config_of(*SMALL_LOANS), Place(str(written.path)))
    assert before == written.operator.authority_key.read_bytes()


def test_nothing_is_left_of_a_folder_that_could_not_be_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PAPERS", ("no_such_file",))
    with pytest.raises(FedpactError, match="Run the command from a checkout"):
        write_deployment(config_of(*SMALL_LOANS), Place(str(tmp_path / "d")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "usage"),
        (["experiment=loans", "--help"], "usage"),
        (["trial", "experiment=loans", "--help"], "usage"),
        (["experiment=loans"], "out is missing"),
        (["experiment=loans", "out=d", "host=a:9"], "without a port"),
        (["experiment=loans", "out=d", "host=a/b"], "legal is the name"),
        (["experiment=loans", "out=d", "port=x"], "whole numbers from 1 to 60000"),
        (["experiment=loans", "out=d", "port=65535"], "whole numbers from 1 to 60000"),
        (["experiment=loans", "out=d", "days=0"], "whole numbers from 1 to 3650"),
        (["experiment=loans", "out=d", "market.C2=3"], "Did you mean"),
        (["experiment=lones", "out=d"], "Did you mean 'loans'"),
        (["experiment=loans", "out=d", "market.C1=-1"], "C1"),
        (["experiment=loans", "out=d", "-m", "market.C1=1,2"], "sweep is set"),
        (["experiment=loans", "out=d", "run_dir=x"], "run_dir is set"),
        (["experiment=loans", "out=d", "--cfg"], "no override"),
        (["key", "--firm", "nobody"], "There is no firm.yaml"),
        (["key", "--firm", "../x"], "legal are 2 to 63 letters"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_written(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    status = main(words)
    said = capsys.readouterr()
    assert (0, told) == (status, "usage") or (status, told in said.err) == (2, True), said.err
    assert list(tmp_path.iterdir()) == []


def test_a_trial_of_a_folder_that_is_there_keeps_to_its_place(
    written: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trial", f"out={written.path}", "port=9300", "days=365", "host=other.org"]) == 2
    assert (
        f"host is other.org, port is 9300, and out={written.path} was written with "
        "host=operator.example.org port=9192; legal is the same. Leave host and port out"
    ) in capsys.readouterr().err
    assert not written.operator.database.exists()


def test_every_script_but_those_that_stop_names_a_python_without_fedpact(
    written: Deployment, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    python.chmod(0o755)
    for part in (written.operator, written.firm(FIRMS[0])):
        for script in part.path.glob("*.sh"):
            done = call(script, PYTHON=str(python))
            line = f"{script.name}: Fedpact is not installed in {python}; make .venv"
            stops = script.name == "stop.sh"
            assert (done.returncode, done.stderr.startswith(line)) == (
                (0, False) if stops else (2, True)
            )
            assert done.stderr.count("\n") == (not stops)


def test_a_node_whose_port_is_taken_says_so_and_how_to_name_another(
    written: Deployment, tmp_path: Path
) -> None:
    shutil.copytree(written.firm(FIRMS[0]).path, tmp_path / "firm")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = call(tmp_path / "firm" / "supernode.sh", FEDPACT_NODE_PORT=port)
    assert (done.returncode, done.stderr) == (
        2,
        f"supernode.sh: port {port} of 127.0.0.1 cannot be opened; stop what has it, or set "
        "FEDPACT_NODE_PORT to a free one\n",
    )


def test_the_command_writes_and_says_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*SMALL_LOANS, "out=some/deploy/", "host=10.1.2.3", "port=9200", "days=30"]
    assert main(words) == 0
    said = capsys.readouterr().out
    folder = Deployment(tmp_path / "some" / "deploy")
    assert folder.digest.read_text().split()[0] in said
    assert "10.1.2.3:9200" in said
    assert str(folder.path) == said.splitlines()[-1]
    assert folder.path.is_dir()
    assert FIRMS[0] in find_firm(FIRMS[0], folder.firm(FIRMS[0]).path).settings.read_text()


def test_the_operators_certificate_is_good_for_its_names_and_its_days(tmp_path: Path) -> None:
    start = datetime.now(UTC)
    trusted = {}
    for name in ("one", "other"):
        authority = Authority(name, 30, start)
        authority.write(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
        authority.write_server(
            tmp_path / f"{name}_server.crt", tmp_path / f"{name}_server.key", "operator.example.org"
        )
        trusted[name] = x509.load_pem_x509_certificate((tmp_path / f"{name}.crt").read_bytes())
    server = x509.load_pem_x509_certificate((tmp_path / "one_server.crt").read_bytes())

    def is_good(host: str, days: int, authority: str = "one") -> bool:
        store = verification.Store([trusted[authority]])
        check = verification.PolicyBuilder().store(store).time(start + timedelta(days=days))
        try:
            check.build_server_verifier(x509.DNSName(host)).verify(server, [])
        except verification.VerificationError:
            return False
        return True

    assert is_good("operator.example.org", 1)
    assert is_good("localhost", 29)
    assert not is_good("other.example.org", 1)
    assert not is_good("operator.example.org", 1, "other")
    assert not is_good("operator.example.org", 31)
    assert not is_good("operator.example.org", -1)


def test_keys_work_and_a_firm_makes_its_own(
    written: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    firm = written.firm(FIRMS[0])
    pinned = {FIRMS[0]: str(written.operator.keys / f"{FIRMS[0]}.pub")}
    assert is_signed(b"offer", sign(b"offer", firm.signing_key), FIRMS[0], pinned)
    assert try_load_public_key(written.operator.nodes / f"{FIRMS[0]}.pub")
    own = FirmFolder(tmp_path)
    own.settings.write_text(firm.settings.read_text())
    words = ["key", "--firm", FIRMS[0], "--folder", str(tmp_path)]
    assert main(words) == 0
    said = capsys.readouterr().out
    for public in (own.node_pub, own.signing_pub):
        assert sha256(public.read_text()) in said
    assert stat.S_IMODE(own.node_key.stat().st_mode) == 0o600
    assert not is_signed(b"offer", sign(b"offer", own.signing_key), FIRMS[0], pinned)
    before = own.node_key.read_bytes()
    assert main(words) == 2
    assert "a key is never replaced" in capsys.readouterr().err.lower()
    assert before == own.node_key.read_bytes()
    own.audit.write_text("")
    assert main(words) == 2
    assert "audit.jsonl audit.head old/" in capsys.readouterr().err
    for key in tmp_path.glob("*.[kp][eu]*"):
        key.unlink()
    assert main(words) == 2  # the log of the old key has to go with it
    assert "keep the old sign.pub with them" in capsys.readouterr().err
    assert not own.node_key.exists()
    own.audit.unlink()
    assert main(words) == 0


def test_in_containers_a_desk_has_no_network_and_a_node_no_data(written: Deployment) -> None:
    whole = yaml.safe_load(written.compose.read_text())
    services = whole["services"]
    assert {"operator", *(f"{f}-{part}" for f in FIRMS for part in ("desk", "node"))} == {*services}
    assert services["operator"]["ports"] == ["9192:9192"]
    for firm in FIRMS:
        desk, node = services[f"{firm}-desk"], services[f"{firm}-node"]
        assert [firm] == desk["profiles"] == node["profiles"]
        assert desk["network_mode"] == "none"
        assert any(volume.endswith("/firm/data:ro") for volume in desk["volumes"])
        shown = {volume.split(":")[0].split("/")[-1] for volume in node["volumes"]}
        assert {"supernode.sh", "ca.crt", "node.key", f"{firm}-socket"} == shown
        assert "ports" not in desk | node
        assert {"ALL"} == {*desk["cap_drop"], *node["cap_drop"]}


def check_pages(written: Deployment, study: Study) -> None:
    """Pages name the port, the digest and what leaves, and only scripts that there are."""
    text = written.study.read_text()
    clients, tells = study.market.clients, study.tells
    assert tells
    for part in (written.operator, *map(written.firm, study.names)):
        page = part.readme.read_text()
        assert sha256(text) in page
        assert "9192" in page
        for contract in study.contracts.values():
            for words in contract.terms(study.strategy.rounds).operator_sees(clients, tells):
                assert f"* {words}\n" in page
        scripts = set(re.findall(r"\./(\w+\.sh)", page))
        assert {path.name for path in part.path.glob("*.sh")} == scripts


def test_pages_name_the_port_the_digest_what_leaves_and_only_scripts_that_there_are(
    written: Deployment,
) -> None:
    study = study_of(json.loads(written.study.read_text()), away=True)
    check_pages(written, study)
    for part in (written.operator, written.firm(FIRMS[0])):
        page = part.readme.read_text()
        assert "* what each of the contested clients earned the firm" in page
        assert "* true classes of the validation clients" in page


EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_that_is_one_study_can_be_written_and_its_pages_say_what_leaves(
    experiment: str, tmp_path: Path
) -> None:
    words = [f"experiment={experiment}", "study.seeds=1"]
    config = config_of(*words)
    if config["campaign"] or config["compare"]:
        with pytest.raises(FedpactError, match="is set; a deployment holds one study"):
            writing.write([*words, f"out={tmp_path / 'd'}"])
        return
    place = Place(str(tmp_path / "d"), port=9192)
    write_deployment(config, place)
    written = Deployment(tmp_path / "d")
    study = study_of(json.loads(written.study.read_text()), away=True)
    check_pages(written, study)
    # What a study of clients settles at home is the same whichever of the two is asked.
    assert study.settles == ("market" if study.market.clients == "own" else "firms")


def test_a_deployment_of_firms_with_own_data_is_written_where_no_data_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["parties=two_own", "out=deploy/", "study.seeds=1", "port=9192"]) == 0
    written = Deployment(tmp_path / "deploy")
    check_pages(written, study_of(json.loads(written.study.read_text()), away=True))
    firm = written.firm("alpha")
    assert "check --example csv > data.yaml" in firm.readme.read_text()
    assert yaml.safe_load(firm.settings.read_text())["data"] == "data.yaml"
    assert main(["check", "--firm", "alpha"]) == 1  # it finds the folder, and no data in it
    assert "data.yaml" in capsys.readouterr().out
    write_own(firm.path)
    assert main(["check", "--firm", "alpha"]) == 0
    digest = sha256(written.study.read_text())
    done = call_check(firm)
    assert (done.returncode, f"sha256  {digest}\n" in done.stdout) == (0, True), done.stderr
    firm.study.write_text(firm.study.read_text() + " ")
    again = call_check(firm, "--json")
    assert again.returncode == 1, again.stderr
    assert digest in json.loads(again.stdout)["findings"][0]["problem"]


def call_check(firm: FirmFolder, *words: str) -> subprocess.CompletedProcess[str]:
    return call(firm.path / "check.sh", *words)


def call(script: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [script, *words],
        env=os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)} | more,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_study_whose_data_are_here_is_checked_with_them(tmp_path: Path) -> None:
    other = "parties.lender_b.dataset.clients=1600"
    with pytest.raises(FedpactError, match="The two firms contest different clients"):
        write_deployment(config_of(*SMALL_LOANS, other), Place(str(tmp_path / "d")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning")
def test_the_superlink_waits_longer_for_its_database_than_flower_does(tmp_path: Path) -> None:
    store = SqlObjectStore(str(tmp_path / "state.db"))
    event.listen(Pool, "checkout", wait_for_locks)
    try:
        store.initialize()
        with store.session() as session:
            waits = session.execute(text("PRAGMA busy_timeout")).scalar()
    finally:
        event.remove(Pool, "checkout", wait_for_locks)
    assert waits == 1000 * LOCKED_S > int(dict(SQLITE_PRAGMAS)["busy_timeout"])


ONCE = ("--no-verdict", "--again", "0")


@pytest.mark.long
@pytest.mark.flower
def test_real_nodes_with_tls_and_keys_answer_and_scripts_say_how_a_run_ended() -> None:
    with federation(*SMALL_LOANS, echo=True) as held:
        early = held.run(60, *ONCE, "--wait", "1")
        assert (early.returncode, "takes no run" in early.stderr) == (2, True), early.stderr
        superlink = held.trial.start_superlink()
        register, nodes_at = held.folder.operator.path / "register.sh", held.folder.operator.nodes
        (nodes_at / f"{FIRMS[1]}.pub").rename(nodes_at / "away")
        one = held.trial.call(register)
        assert (one.returncode, f"{FIRMS[0]}: registered as" in one.stdout) == (1, True)
        assert f"there is no nodes/{FIRMS[1]}.pub" in one.stderr
        (nodes_at / "away").rename(nodes_at / f"{FIRMS[1]}.pub")
        held.trial.register()
        held.trial.register()  # twice does no harm
        numbers = {(held.folder.operator.nodes / f"{firm}.id").read_text() for firm in FIRMS}
        assert len(numbers) == 2
        nodes = [held.trial.start_node(firm) for firm in FIRMS]
        done = held.run(90, *ONCE)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "finished:completed" in done.stderr
        assert list(FIRMS) == json.loads((held.folder.operator.results / "told.json").read_text())
        shutil.rmtree(held.folder.operator.app)
        apps = ("tests.echo_app:broken", "tests.echo_app:client")
        write_bundle(held.folder.operator.app, held.folder.study.read_text(), *apps)
        failed = held.run(60, *ONCE)
        assert (failed.returncode, "finished:failed" in failed.stderr) == (2, True), failed.stderr
        for firm, node in zip(FIRMS, nodes, strict=True):
            held.trial.call(held.folder.firm(firm).path / "stop.sh")
            assert node.wait(1) == 0
        assert held.trial.call(register, "remove", FIRMS[1]).returncode == 0
        (nodes_at / f"{FIRMS[1]}.pub.removed").rename(nodes_at / f"{FIRMS[1]}.pub")
        same = held.trial.call(register)
        assert (same.returncode, "this key was removed before" in same.stderr) == (1, True)
        held.trial.call(held.folder.operator.path / "stop.sh")
        assert superlink.wait(1) == -signal.SIGTERM
        until = time.monotonic() + 10
        while left := running(held.trial.mark):
            assert time.monotonic() < until, left
            time.sleep(0.1)
        held.trial.start_superlink()
        held.trial.start_node(FIRMS[0])
    assert not running(held.trial.mark)


def running(mark: str) -> list[str]:
    """The processes of a federation, by what started them."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            if f"{MARK}={mark}".encode() in (place / "environ").read_bytes().split(b"\0"):
                found.append((place / "cmdline").read_text().replace("\0", " "))
    return found
