"""One file of the spool: what was written whole comes back, whatever is cut off."""

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import StateError
from tastemaker.events.segment import MAGIC, Segment, framed

LARGE = 2**26
# One file


payloads = st.lists(st.binary(min_size=1, max_size=40), max_size=5)


@given(payloads, st.integers(0, 300))
def test_a_file_cut_anywhere_gives_the_frames_before_the_cut(
    tmp_path_factory: pytest.TempPathFactory, given_payloads: list[bytes], cut: int
) -> None:
    path = tmp_path_factory.mktemp("segment") / "1.spool"
    segment = Segment.create(path)
    segment.append(b"".join(map(framed, given_payloads)))
    segment.close()
    kept = min(cut, path.stat().st_size)
    os.truncate(path, kept)
    ends = [len(MAGIC), *itertools.accumulate((8 + len(p) for p in given_payloads), initial=len(MAGIC))][1:]
    whole = [end for end in ends if end <= kept]
    recovered, torn_bytes = Segment.recover(path)
    assert recovered.read(0, LARGE)[0] == given_payloads[: max(len(whole) - 1, 0)]
    assert torn_bytes == kept - (whole[-1] if whole else 0)
    assert path.stat().st_size == recovered.size
    recovered.close()


@pytest.mark.parametrize("tail", [bytes(64), b"\xff" * 7, framed(b"late")[:-1], b"\x04\0\0\0\0\0\0\0late"])
def test_a_torn_tail_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "1.spool"
    path.write_bytes(MAGIC + framed(b"first") + tail)
    segment, torn_bytes = Segment.recover(path)
    assert segment.read(0, LARGE)[0] == [b"first"]
    assert torn_bytes == len(tail)
    segment.append(framed(b"next"))
    assert segment.read(0, LARGE)[0] == [b"first", b"next"]
    segment.close()


def test_a_file_of_another_layout_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "1.spool"
    path.write_bytes(b"TMSPOOL9" + framed(b"x"))
    with pytest.raises(StateError, match=r"1\.spool, is '544d53504f4f4c39', must be 544d53504f4f4c31"):
        Segment.recover(path)
    assert path.read_bytes() == b"TMSPOOL9" + framed(b"x")


def test_frames_are_read_in_portions(tmp_path: Path) -> None:
    segment = Segment.create(tmp_path / "1.spool")
    segment.append(b"".join(framed(bytes([n]) * 10) for n in range(1, 5)))
    first, at = segment.read(0, len(MAGIC) + 19)  # 18 bytes a frame: the second begins within
    assert first == [b"\1" * 10, b"\2" * 10]
    assert segment.read(at, LARGE) == ([b"\3" * 10, b"\4" * 10], segment.size)
    segment.remove()
    assert not list(tmp_path.iterdir())
