"""The file of tokens, and the command that writes it."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from layerwire_server.access import tokens
from layerwire_server.access.command import token
from layerwire_server.access.tokens import TokenFile, TokenFileError


@pytest.fixture
def file(tmp_path):
    return TokenFile(tmp_path / "tokens.json")


def run(*arguments):
    return CliRunner().invoke(token, [str(argument) for argument in arguments])


def test_a_token_is_kept_by_its_hash_alone_for_its_owner_alone(file):
    secret = file.add("ci", ["infer"])
    (kept,) = file.read()
    assert (kept.name, kept.scopes, kept.expires) == ("ci", ("infer",), None)
    assert kept.sha256 == tokens.digest(secret)
    assert secret not in file.path.read_text()
    assert len(secret) >= 43
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_admin_may_all_and_infer_may_not_administer(file):
    file.add("ops", ["admin"])
    file.add("ci", ["infer"])
    ops, ci = file.read()
    assert (ops.allows("admin"), ops.allows("infer"), ci.allows("admin"), ci.allows("infer")) == (
        True,
        True,
        False,
        True,
    )


def test_a_token_expires(file):
    file.add("ci", ["infer"], timedelta(hours=1))
    (kept,) = file.read()
    now = datetime.now(UTC)
    assert kept.is_live(now)
    assert not kept.is_live(now + timedelta(hours=1))


def test_a_name_may_have_two_tokens_and_lose_one_or_all(file):
    for _ in range(2):
        file.add("ci", ["infer"])
    file.add("other", ["infer"])
    first, second, other = file.read()
    assert file.revoke(first.id) == (first,)
    assert file.read() == (second, other)
    assert file.revoke("ci") == (second,)
    assert file.read() == (other,)


def test_many_who_add_at_once_lose_nothing(file):
    with ThreadPoolExecutor(8) as pool:
        secrets = list(pool.map(lambda number: file.add(f"name-{number}", ["infer"]), range(40)))
    assert {kept.sha256 for kept in file.read()} == set(map(tokens.digest, secrets))
    assert [path.name for path in file.path.parent.iterdir()] == ["tokens.json"]


def test_the_file_stays_as_open_as_somebody_made_it(file):
    file.add("ci", ["infer"])
    file.path.chmod(0o640)
    file.add("ci", ["infer"])
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o640


GOOD = {
    "id": "00000000",
    "name": "x",
    "sha256": "0" * 64,
    "scopes": ["infer"],
    "creation_time": "2026-01-01T00:00:00Z",
}
WRONG_FILES = {
    "empty": "",
    "list": "[]",
    "half": "{",
    "null": "null",
    "number": '{"tokens": 1}',
    "bare": '{"tokens": [{}]}',
    "other": '{"token": []}',
    "bytes": "\udcff",
    "large": "{}" * 600_000,
    **{
        f"{key}-{number}": json.dumps({"tokens": [GOOD | {key: value}]})
        for number, (key, value) in enumerate(
            [
                ("sha256", "secret-by-mistake"),
                ("scopes", ["root"]),
                ("scopes", []),
                ("creation_time", "2026-01-01T00:00:00"),
                ("name", "a b"),
                ("id", ""),
                ("token", "secret-by-mistake"),
            ]
        )
    },
}


@pytest.mark.parametrize("text", WRONG_FILES.values(), ids=WRONG_FILES)
def test_what_is_no_such_file_is_told_without_what_is_in_it(file, text):
    file.path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(TokenFileError) as error:
        file.read()
    assert "tokens.json" in str(error.value)
    assert "secret-by-mistake" not in str(error.value)
    with pytest.raises(TokenFileError):
        file.add("ci", ["infer"])
    assert file.path.read_bytes() == text.encode("utf-8", "surrogateescape")


def test_a_file_that_is_missing_or_a_folder_is_told(tmp_path):
    for path in (tmp_path / "missing", tmp_path, tmp_path / "no" / "folder"):
        with pytest.raises(TokenFileError, match="can't be read"):
            TokenFile(path).read()
        with pytest.raises(TokenFileError):
            TokenFile(path).revoke("ci")
    with pytest.raises(TokenFileError, match="can't be written"):
        TokenFile(tmp_path / "no" / "folder").add("ci", ["infer"])


def test_new_prints_the_token_alone_on_standard_output(file):
    result = run("new", "ci", "--tokens", file.path, "--scope", "admin", "--expires", "90d")
    assert result.exit_code == 0
    secret = result.stdout.strip()
    assert result.stdout == secret + "\n"
    assert secret not in result.stderr
    (kept,) = file.read()
    assert kept.sha256 == tokens.digest(secret)
    assert kept.scopes == ("admin",)
    assert kept.expires is not None
    assert kept.expires - kept.creation_time == timedelta(days=90)


def test_list_shows_what_there_is_and_no_hash(file):
    run("new", "ci", "--tokens", file.path)
    run("new", "ops", "--tokens", file.path, "--scope", "infer", "--scope", "admin", "--expires", "12h")
    content = json.loads(file.path.read_text())
    content["tokens"][1]["expires"] = "2020-01-01T00:00:00Z"
    file.path.write_text(json.dumps(content))
    result = run("list", "--tokens", file.path)
    assert result.exit_code == 0
    for kept in content["tokens"]:
        assert kept["id"] in result.stdout
        assert kept["sha256"] not in result.stdout
    assert "never" in result.stdout
    assert "2020-01-01 00:00 (over)" in result.stdout
    assert "infer, admin" in result.stdout


def test_revoke_tells_what_it_took_out(file):
    run("new", "ci", "--tokens", file.path)
    (kept,) = file.read()
    result = run("revoke", "ci", "--tokens", file.path)
    assert result.stdout == f"revoked {kept.id} of ci\n"
    assert run("revoke", "ci", "--tokens", file.path).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("new", "a b"), 1, "a token's name is up to 63"),
        (("new", "x" * 64), 1, "a token's name is up to 63"),
        (("new", ""), 1, "a token's name is up to 63"),
        (("new", "ci", "--scope", "root"), 2, "'root' is not one of"),
        (("new", "ci", "--expires", "0d"), 2, "must be hours, days or weeks"),
        (("new", "ci", "--expires", "5m"), 2, "must be hours, days or weeks"),
        (("new", "ci", "--expires", "999999w"), 1, "can't live for so long"),
        (("revoke", "ci"), 1, "can't be read"),
        (("list",), 1, "can't be read"),
    ],
)
def test_a_wrong_word_is_told(file, arguments, status, words):
    result = run(*arguments, "--tokens", file.path)
    assert (result.exit_code, words in result.stderr) == (status, True), result.stderr
    assert not file.path.exists()
    assert not result.stdout
