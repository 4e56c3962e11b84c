"""What a client process notes of its calls."""

from layerwire_bench.calling.tally import Notes, Tally


def test_a_tally_gives_each_note_once():
    tally = Tally()
    tally.note(0.0, 3, "OK", "")
    tally.note_late(0.5)
    tally.note(0.0, 4, "UNAVAILABLE", "gone")
    assert tally.first_error == "UNAVAILABLE: gone"
    taken = tally.take()
    assert (taken.samples.tolist(), taken.errors(), taken.late.tolist()) == ([3, 4], {"UNAVAILABLE": 1}, [0.5])
    assert (len(tally.take().due), tally.first_error) == (0, None)
    assert Notes.concatenate([taken, taken]).samples.tolist() == [3, 4, 3, 4]
