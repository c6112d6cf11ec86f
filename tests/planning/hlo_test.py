import pytest

from w2v2_jax.planning import hlo

TEXT = """HloModule jit_step, is_scheduled=true

%double (input: f32[4,8]) -> f32[4,8] {
  %input = f32[4,8]{1,0} parameter(0)
  ROOT %twice = f32[4,8]{1,0} add(%input, %input), metadata={op_name="jit(step)/add"}
}

ENTRY %main (x: f32[4,8], y: s32[]) -> (f32[4,8], s32[]) {
  %x = f32[4,8]{1,0:T(8,128)} parameter(0)
  %y = s32[]{:T(128)} parameter(1)
  %fusion.1 = f32[4,8]{1,0:T(8,128)S(1)} fusion(%x), kind=kLoop, calls=%double
  ROOT %pair = (f32[4,8]{1,0:T(8,128)S(1)}, /*index=1*/s32[]{:T(128)}) tuple(%fusion.1, %y)
}
"""


def test_a_program_is_its_computations():
    module = hlo.parse(TEXT)
    assert module.entry == "main"
    assert {name: list(each.instructions) for name, each in module.computations.items()} == {
        "double": ["input", "twice"],
        "main": ["x", "y", "fusion.1", "pair"],
    }


def test_an_instruction_has_operands_and_calls():
    main = hlo.parse(TEXT).computations["main"]
    fusion = main.instructions["fusion.1"]
    assert (fusion.opcode, fusion.operands, fusion.called("calls")) == ("fusion", ("x",), ["double"])
    assert main.instructions[main.root].operands == ("fusion.1", "y")
    assert main.parameter(1) == "y"
    assert [user.name for user in main.users("x")] == ["fusion.1"]


def test_branches_are_called_in_their_order():
    text = (
        "ENTRY %m (p: pred[]) -> f32[] {\n  ROOT %c = f32[] conditional(%p, %a, %b), branch_computations={%no, %yes}\n}"
    )
    [conditional] = hlo.parse(text).computations["m"].instructions.values()
    assert conditional.called("branch_computations", "true_computation") == ["no", "yes"]


@pytest.mark.parametrize(
    ("type_", "hbm", "chip"),
    [
        ("f32[4,8]{1,0}", 4 * 8 * 4, 0),
        ("f32[4,8]{1,0:T(8,128)}", 8 * 128 * 4, 0),  # filled up to a tile
        ("bf16[3,8,99]{1,2,0:T(8,128)(2,1)}", 3 * 128 * 104 * 2, 0),  # axis 1 lies along the lanes
        ("f32[4,8]{1,0:T(8,128)S(1)}", 0, 8 * 128 * 4),
        ("(pred[16]{0}, s32[]{:T(128)S(6)})", 16, 4),
        ("(u8[2,3]{1,0}, /*index=1*/token[])", 6, 0),
        ("c64[2]{0}", 2 * 8, 0),
    ],
)
def test_bytes_are_those_of_filled_tiles_in_their_memory(type_, hbm, chip):
    assert hlo.num_bytes(type_) == (hbm, chip)


def test_text_that_is_no_program_is_an_error():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("hello")
