import pytest
from planning.programs import computation, cycles, main, module

from w2v2_jax.planning.chips import Chip
from w2v2_jax.planning.collectives import Collective
from w2v2_jax.planning.costs import program_cost

# A cycle is a second, and so is a KB of memory or of links.
CHIP = Chip("slow", 1, 1e3, 2**30, hbm_bandwidth=1024, ici_bandwidth=1024, clock=1.0, num_axes=2, pod_chips=8)
X = "x = f32[256]{0:S(1)} parameter(0)"  # 1 KB on the chip
Y = "y = f32[256]{0} parameter(1)"  # 1 KB in HBM


def cost(*computations):
    return program_cost(module(*computations), CHIP)


def work(name, operand, number, space=":S(1)"):
    return f"{name} = f32[256]{{0{space}}} negate(%{operand}), {cycles(number)}"


def test_operations_follow_one_another():
    found = cost(main(X, work("a", "x", 3), work("b", "a", 4)))
    assert (found.seconds, found.compute, found.memory) == (7, 7, 0)


def test_an_operation_takes_the_longer_of_its_cycles_and_its_memory():
    found = cost(main(Y, work("a", "y", 5, ""), work("b", "a", 1, "")))
    assert (found.seconds, found.compute, found.memory) == (5 + 2, 6, 4)


def test_copies_beside_the_operations_are_hidden_as_far_as_memory_is_idle():
    copy = ["s = (f32[256]{0:S(1)}, f32[256]{0}, u32[]) copy-start(%y)", "d = f32[256]{0:S(1)} copy-done(%s)"]
    assert cost(main(Y, X, *copy, work("a", "x", 3))).seconds == 3
    assert cost(main(Y, X, *copy, work("a", "x", 0))).seconds == 1


def loop(limit="5", direction="LT", attributes=""):
    pair = "(s32[], f32[256]{0:S(1)})"
    state = f"p = {pair} parameter(0)"
    count = "i = s32[]{:T(128)S(6)} get-tuple-element(%p), index=0"
    body = computation("body", state, count, "v = f32[256]{0:S(1)} get-tuple-element(%p), index=1",
                       work("a", "v", 3), f"t = {pair} tuple(%i, %a)")  # fmt: skip
    check = computation("check", state, count, f"n = s32[]{{:T(128)S(6)}} constant({limit})",
                        f"less = pred[]{{:S(6)}} compare(%i, %n), direction={direction}")  # fmt: skip
    call = f"w = {pair} while(%t), condition=%check, body=%body{attributes}"
    return body, check, main(X, "c = s32[]{:S(6)} constant(0)", f"t = {pair} tuple(%c, %x)", call)


def test_a_loop_counts_as_often_as_it_turns():
    assert cost(*loop()).seconds == pytest.approx(5 * 3)


def test_the_compiler_knows_best_how_often_a_loop_turns():
    known = ', backend_config={"known_trip_count":{"n":"7"}}'
    assert cost(*loop(attributes=known)).seconds == pytest.approx(7 * 3)


def test_a_loop_of_unknown_length_counts_once_and_is_told():
    found = cost(*loop(direction="NE"))
    assert (found.seconds, found.unknown_loops) == (3, 1)


def test_of_branches_the_one_with_most_products_counts():
    kept = computation("kept", X, f"k = f32[256]{{0:S(1)}} convolution(%x, %x), {cycles(2)}")
    dropped = computation("dropped", X, work("d", "x", 9))
    choose = "c = f32[256]{0:S(1)} conditional(%i, %x, %x), branch_computations={%dropped, %kept}"
    assert cost(kept, dropped, main(X, "i = s32[]{:S(6)} constant(1)", choose)).seconds == 2


def test_collectives_are_counted_apart_and_in_loops():
    sums = "a = f32[256]{0:S(1)} all-reduce(%v), replica_groups={{0,1}}, to_apply=%add"
    body, check, entry = loop()
    found = cost(body.replace(work("a", "v", 3), sums), check, entry)
    assert found.collectives == (Collective("all-reduce", 2, 1024),) * 5
    assert (found.seconds, found.communication) == (0, 5)  # a KB each, twice the half


def test_a_kernel_takes_the_arithmetic_that_it_is_said_to():
    kernel = 'k = f32[256]{0:S(1)} custom-call(%x), custom_call_target="tpu_custom_call"'
    said = f'{kernel}, backend_config={{"custom_call_config":{{"cost_estimate":{{"flops":"4000"}}}}}}'
    assert cost(main(X, said)).seconds == 4
    assert cost(main(X, kernel)).unknown_kernels == 1
