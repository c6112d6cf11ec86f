import pytest
from planning.programs import computation, main, module

from w2v2_jax.planning.collectives import Collective, collectives_of, group_size

GROUPS = "replica_groups={{0,1,2,3},{4,5,6,7}}"
X = "x = f32[256]{0} parameter(0)"


def collectives(*computations):
    program = module(*computations)
    return collectives_of(program.computations["main"], program)


@pytest.mark.parametrize(
    "groups",
    [
        "replica_groups={{0,1,2,3},{4,5,6,7}}",
        "replica_groups=[2,4]<=[8]",
        "replica_groups=[2,4]<=[4,2]T(1,0)",
        "replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}",
        "replica_groups=mesh['axis_0'=2,'axis_1'=2,'axis_2'=2] {'axis_0','axis_2'}",
        "replica_groups=mesh['axis_0'=1,'axis_1'=4,'axis_2'=4], device_ids=([4,4]T(1,0)) {'axis_1'}",
    ],
)
def test_groups_of_four_are_read_however_they_are_written(groups):
    assert group_size(f"channel_id=2, {groups}, dimensions={{3}}, metadata={{op_name='a'}}") == 4


def test_an_all_reduce_sends_its_array_twice_but_for_its_own_part():
    [found] = collectives(main(X, f"r = f32[256]{{0}} all-reduce(%x), channel_id=1, {GROUPS}, to_apply=%add"))
    assert found == Collective("all-reduce", num_chips=4, num_bytes=1024)
    assert found.sent == 2 * 1024 * 3 / 4


def test_several_arrays_are_summed_at_once():
    y = "y = bf16[256]{0} parameter(1)"
    call = f"r = (f32[256]{{0}}, bf16[256]{{0}}) all-reduce(%x, %y), channel_id=1, {GROUPS}, to_apply=%add"
    assert collectives(main(X, y, call)) == [Collective("all-reduce", 4, 1024 + 512)]


def test_an_all_gather_is_as_large_as_what_it_gives():
    [found] = collectives(main(X, f"r = f32[1024]{{0}} all-gather(%x), channel_id=1, {GROUPS}, dimensions={{0}}"))
    assert found == Collective("all-gather", 4, 4096)
    assert found.sent == 4096 * 3 / 4


def test_one_that_is_started_and_awaited_is_one():
    start = "s = (f32[256]{0}, f32[256]{0}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1}}"
    done = "r = f32[256]{0} collective-permute-done(%s)"
    assert collectives(main(X, start, done)) == [Collective("collective-permute", 1, 1024)]


def fused(name, channel):
    gather = f"g = f32[1024]{{0}} all-gather(%p), channel_id={channel}, {GROUPS}, dimensions={{0}}"
    return computation(name, "p = f32[256]{0} parameter(0)", gather)


def test_one_that_is_spread_over_fusions_is_one():
    calls = [f"f{i} = f32[1024]{{0}} fusion(%x), kind=kCustom, calls=%async_collective_fusion.{i}" for i in (1, 2, 3)]
    parts = [fused(f"async_collective_fusion.{i}", channel) for i, channel in ((1, 7), (2, 7), (3, 8))]
    assert collectives(*parts, main(X, *calls)) == [Collective("all-gather", 4, 4096)] * 2


def test_an_all_reduce_of_which_each_keeps_a_part_scatters():
    body = computation(
        "all-reduce-scatter.1",
        "p = f32[256]{0} parameter(0)",
        f"r = f32[256]{{0}} all-reduce(%p), channel_id=1, {GROUPS}, to_apply=%add",
        "s = f32[64]{0} dynamic-slice(%r, %r), dynamic_slice_sizes={64}",
    )
    call = "f = f32[64]{0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1"
    [found] = collectives(body, main(X, call))
    assert found == Collective("reduce-scatter", 4, 1024)
    assert found.sent == 1024 * 3 / 4
