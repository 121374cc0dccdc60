"""Files of any length stream through: what is held does not grow with them."""

import pytest

from allotment.backend.bench.intake import streamed


def test_a_stream_of_a_few_megabytes_is_read_to_its_end():
    told = streamed(2)
    assert 1.9 <= told["streamed_mb"][0] <= 2.1


@pytest.mark.soak
def test_memory_stays_flat_while_five_gigabytes_stream_through():
    told = streamed(5_000)
    assert told["streamed_mb"][0] > 4_999
    assert told["rss_mb_max"][0] <= told["rss_mb_first_half_max"][0] * 1.02
