"""What h2load's words say: answers that are errors are no answers. Its log is read where it doesn't come to its end."""

import stat

import pytest
from tools.benchmarks import driver
from tools.benchmarks.driver import DriverError, Post

PRINT = """requests: {done} total, {done} started, {done} done, {good} succeeded, 0 failed, 0 errored, 0 timeout
traffic: 1.20KB (1234) total, 96B (96) headers (space savings 90.00%), 1.00KB ({data}) data
"""
# Answers at 0.1, 0.2 and 0.3 s that took 10, 20 and 30 ms, as microseconds.
LOG = "90000\t200\t10000\n180000\t200\t20000\n270000\t{code}\t30000\n"
SUCCESS = LOG.format(code=200)


@pytest.fixture
def h2load(tmp_path, monkeypatch):
    """Makes a program that prints, writes a log and, where it is told to, stays."""

    def make(printed, log=SUCCESS, stays=False):
        program = tmp_path / "h2load"
        script = "".join(
            [
                "#!/bin/sh\n",
                'for word in "$@"; do case $word in --log-file=*) cat >"${word#--log-file=}" <<END\n',
                f"{log}END\n;; esac; done\ncat <<END\n{printed}END\n",
                "exec sleep 60\n" if stays else "",
            ]
        )
        program.write_text(script)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(driver, "PROGRAM", str(program))
        monkeypatch.setattr(driver, "END_SECONDS", 0.5)
        body = tmp_path / "body"
        body.write_bytes(b"1234")
        return Post("http://127.0.0.1:1/", body, http1=True)

    return make


def test_answers_have_their_times(h2load):
    post = h2load(PRINT.format(done=3, good=3, data=120))
    answers = driver.drive(post, 1, 0.1, 40)
    assert answers.ends.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert answers.seconds.tolist() == pytest.approx([0.01, 0.02, 0.03])


@pytest.mark.parametrize(
    ("printed", "log"),
    [
        (PRINT.format(done=3, good=2, data=120), LOG.format(code=200)),
        (PRINT.format(done=3, good=3, data=80), LOG.format(code=200)),  # gRPC's errors have no body
        (PRINT.format(done=0, good=0, data=0), LOG.format(code=200)),
        (PRINT.format(done=3, good=3, data=120), LOG.format(code=429)),
        ("", LOG.format(code=200)),
    ],
    ids=["failures", "too few bytes", "none", "status", "silence"],
)
def test_what_is_no_success_is_an_error(h2load, printed, log):
    with pytest.raises(DriverError):
        driver.drive(h2load(printed, log), 1, 0.1, 40)


def test_a_driver_that_stays_is_ended_and_its_log_counts(h2load):
    answers = driver.drive(h2load("", stays=True), 1, 0.1, 40)
    assert len(answers.ends) == 3


def test_a_message_in_a_body_has_its_length_before_it():
    assert driver.grpc_body(b"abc") == b"\0\0\0\0\x03abc"
