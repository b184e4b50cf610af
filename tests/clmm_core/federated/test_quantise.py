"""Packing against a plain oracle: what every value becomes, how far off, how often to either side, and in how many bytes."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_array

from clmm_core.federated.arrays import FUSION, Arrays, part_of
from clmm_core.federated.quantise import BLOCK, LARGEST, Packed, pack, packed_name, unpack

LEVELS = {8: 127, 4: 7}
each_bits = pytest.mark.parametrize("bits", [8, 4])
NAMES = ("modalities.acc.encoder.w", "modalities.acc.head.b", "modalities.gyro.encoder.w", "primary.w")


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def some_update(seed: int = 0, scale: float = 1e-3) -> Arrays:
    """Arrays of two modalities and of what belongs to none, of uneven sizes and shapes, one of them a number alone."""
    shapes = {NAMES[0]: (3, 5, 61), NAMES[1]: (7,), NAMES[2]: (11, 32), NAMES[3]: (2, 2), "fusion.scale": ()}
    return {name: generator(seed + i).normal(0, scale, shape).astype(np.float32) for i, (name, shape) in enumerate(shapes.items())}


def there_and_back(update: Arrays, bits: int, seed: int = 0) -> Arrays:
    return unpack(pack(update, bits, generator(seed)), bits, update)


def parts_of(update: Arrays) -> dict[str, np.ndarray]:
    """Each part's values, one array after the other by name: what shares blocks."""
    names = sorted(update)
    return {part: np.concatenate([update[n].ravel() for n in names if part_of(n) == part]) for part in {part_of(n) for n in names}}


@each_bits
def test_every_part_travels_as_one_row_of_bytes(bits: int):
    update = some_update()
    packed = pack(update, bits, generator())
    assert set(packed) == {packed_name("acc"), packed_name("gyro"), packed_name(FUSION)}
    assert {part_of(name) for name in packed} == {"acc", "gyro", FUSION}
    assert all(data.dtype == np.uint8 and data.ndim == 1 for data in packed.values())
    back = unpack(packed, bits, update)
    assert {name: (values.shape, values.dtype) for name, values in back.items()} == {
        name: (values.shape, np.dtype(np.float32)) for name, values in update.items()
    }


@each_bits
def test_no_value_is_further_off_than_a_step_of_its_block(bits: int):
    update = some_update() | {NAMES[2]: np.float32([[1e-20, -3e20, 1.0], [0.0, -0.0, 7.0]])}
    found = parts_of(there_and_back(update, bits))
    for part, values in parts_of(update).items():
        for first in range(0, len(values), BLOCK):
            block = values[first : first + BLOCK].astype(np.float64)
            step = np.abs(block).max() * (1 + 2**-7) / LEVELS[bits]  # the scale is rounded up in its eighth bit
            assert np.abs(found[part][first : first + BLOCK] - block).max() <= step * (1 + 1e-6)


@each_bits
def test_the_mean_over_many_seeds_is_the_value(bits: int):
    update = {NAMES[0]: some_update()[NAMES[0]][:1, :2, :40]}
    times = 3000
    total = sum(there_and_back(update, bits, seed)[NAMES[0]].astype(np.float64) for seed in range(times))
    step = np.abs(update[NAMES[0]]).max() * (1 + 2**-7) / LEVELS[bits]
    # The deviation of one rounding is at most half a step; five of the mean's.
    assert np.abs(total / times - update[NAMES[0]]).max() < 5 * 0.5 * step / np.sqrt(times)


@pytest.mark.parametrize("num_equal", [0, 3, 255])
def test_the_expected_error_of_a_block_is_below_its_own_energy(num_equal: int):
    """As error feedback needs it: the worst block of 4 bits has one large value and many of about a twentieth of it."""
    block = np.concatenate([[1.0], np.full(BLOCK - 1, 0.05)])
    block[1 : 1 + num_equal] *= np.linspace(0.2, 4, num_equal)
    in_steps = block * 7
    expected = ((np.ceil(in_steps) - in_steps) * (in_steps - np.floor(in_steps))).sum() / 49
    assert expected < 0.75 * (block**2).sum()
    update = {"primary.w": block.astype(np.float32)}
    measured = np.mean([((there_and_back(update, 4, seed)["primary.w"] - block) ** 2).sum() for seed in range(200)])
    assert measured == pytest.approx(expected, rel=0.1)


def reference(content: bytes, bits: int, count: int) -> np.ndarray:
    """Read a part a value at a time: its block's scale is the upper half of a float32, its level is counted from the lowest."""
    num_blocks = (count + BLOCK - 1) // BLOCK
    values = []
    for i in range(count):
        at = 2 * (i // BLOCK)
        scale = np.frombuffer(b"\0\0" + content[at : at + 2], "<f4")[0]
        byte = content[2 * num_blocks + (i if bits == 8 else i // 2)]
        code = byte if bits == 8 else (byte >> 4 if i % 2 else byte & 15)
        values.append((code - LEVELS[bits]) * float(scale) / LEVELS[bits])
    return np.array(values)


@each_bits
@pytest.mark.parametrize("count", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 1001])
def test_bytes_are_read_as_they_are_described(bits: int, count: int):
    update = {"primary.w": generator(count).normal(size=count).astype(np.float32)}
    packed = pack(update, bits, generator())
    content = zlib.decompress(packed[packed_name(FUSION)].tobytes())
    assert len(content) == 2 * -(-count // BLOCK) + -(-count * bits // 8)
    np.testing.assert_allclose(unpack(packed, bits, update)["primary.w"], reference(content, bits, count), rtol=1e-6)


@each_bits
@given(values=any_array(np.float32, st.integers(1, 600), elements=st.floats(-(2.0**100), 2.0**100, width=32)), seed=st.integers(0, 9))
def test_any_finite_values_come_back_near_and_of_the_same_sign(bits: int, values: np.ndarray, seed: int):
    back = there_and_back({"primary.w": values}, bits, seed)["primary.w"]
    assert np.isfinite(back).all()
    assert (back * np.sign(values) >= 0).all()
    assert (back[values == 0] == 0).all()
    largest = np.abs(values.astype(np.float64)).max()
    assert np.abs(back).max() <= max(largest * (1 + 2**-7), 1e-38)


@each_bits
def test_the_same_seed_packs_the_same_and_another_does_not(bits: int):
    one, again, other = (pack(some_update(), bits, generator(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert any(not np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("bits", "times_fewer"), [(8, 3.95), (4, 7.8)])
def test_an_update_has_so_many_times_fewer_bytes(bits: int, times_fewer: float):
    """Before Deflate finds anything in them: these values use all levels alike."""
    update = {"primary.w": generator().uniform(-1, 1, 70_000).astype(np.float32)}
    assert update["primary.w"].nbytes / sum(data.nbytes for data in pack(update, bits, generator()).values()) > times_fewer
    bell = {"primary.w": generator().normal(0, 1, 70_000).astype(np.float32)}  # more alike those of training
    assert bell["primary.w"].nbytes / sum(data.nbytes for data in pack(bell, bits, generator()).values()) > 32 / bits


def test_nothing_is_packed_as_nothing():
    assert pack({}, 4, generator()) == {}
    assert unpack({}, 4, some_update()) == {}


def test_a_part_that_is_not_there_stays_away():
    update = some_update()
    gyroscope = {name: values for name, values in update.items() if part_of(name) == "gyro"}
    assert set(unpack(pack(gyroscope, 8, generator()), 8, update)) == {NAMES[2]}


@pytest.mark.parametrize("bits", [0, 2, 16, 32])
def test_unknown_bits_are_refused(bits: int):
    with pytest.raises(ValueError, match=f"expected 8 or 4 bits a value, found {bits}"):
        pack(some_update(), bits, generator())
    with pytest.raises(ValueError, match=f"expected 8 or 4 bits a value, found {bits}"):
        unpack({}, bits, some_update())


@each_bits
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, np.finfo(np.float32).max])
def test_values_that_no_scale_holds_are_refused(bits: int, bad: float):
    update = some_update()
    update[NAMES[2]][3, 4] = bad
    with pytest.raises(ValueError, match=r"part 'gyro': expected finite values of at most 3.39e\+38"):
        pack(update, bits, generator())
    update[NAMES[2]][3, 4] = LARGEST
    assert there_and_back(update, bits)[NAMES[2]][3, 4] == np.float32(LARGEST)


def changed(how: str, packed: Packed) -> Packed:
    """Spoil the packed gyroscope of 352 values: 4 bytes of scales, then the codes."""
    name = packed_name("gyro")
    data = packed[name]
    content = bytearray(zlib.decompress(data.tobytes()))

    def deflated(new: bytes) -> np.ndarray:
        return np.frombuffer(zlib.compress(new), np.uint8)

    spoilt = {
        "cut off": data[:-3],
        "half": data[: len(data) // 2],
        "empty": data[:0],
        "no code": data[::-1],
        "longer": np.concatenate([data, data[:2]]),
        "fewer values": deflated(bytes(content[:-1])),
        "more values": deflated(bytes(content) + b"\0"),
        "endless": deflated(b"\0" * 10_000_000),
        "scale": deflated(bytes([0x80, 0x7F, *content[2:]])),
        "code": deflated(bytes([*content[:-1], 0xFF])),
        "floats": data.astype(np.float32),
        "table": data[None],
    }
    return packed | {name: spoilt[how]}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut off", "expected 180 bytes for 352 values of 4 bits, found 180 and no end, 0 after the end"),
        ("half", r"expected 180 bytes for 352 values of 4 bits, found \d+ and no end"),
        ("empty", "expected 180 bytes .* found 0 and no end"),
        ("no code", "expected Deflate's code, found something else: "),
        ("longer", "expected 180 bytes .* found 180, 2 after the end"),
        ("fewer values", "expected 180 bytes .* found 179, 0 after the end"),
        ("more values", "expected 180 bytes .* found 181"),
        ("endless", "expected 180 bytes .* found 181 and no end"),
        ("scale", "expected finite scales and codes of 0 to 14"),
        ("code", "expected finite scales and codes of 0 to 14"),
        ("floats", "expected a row of bytes, found float32"),
        ("table", r"expected a row of bytes, found uint8 of shape \(1, "),
    ],
)
def test_what_was_not_packed_like_this_is_refused(how: str, message: str):
    update = some_update()
    with pytest.raises(ValueError, match=f"'modalities.gyro.packed': {message}"):
        unpack(changed(how, pack(update, 4, generator())), 4, update)


def test_other_bits_or_shapes_than_those_packed_are_refused():
    update = some_update()
    with pytest.raises(ValueError, match=r"expected .* bytes for .* values of 8 bits, found "):
        unpack(pack(update, 4, generator()), 8, update)
    with pytest.raises(ValueError, match="expected 179 bytes for 350 values of 4 bits, found 180"):
        unpack(pack(update, 4, generator()), 4, update | {NAMES[2]: np.zeros(350, np.float32)})
    stranger = {"modalities.heart.packed": np.zeros(3, np.uint8)}
    with pytest.raises(ValueError, match=r"expected packed parts among fusion\.packed, .*, found 'modalities\.heart\.packed'"):
        unpack(stranger, 4, update)
