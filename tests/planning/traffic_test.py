from planning.programs import computation, main, module

from w2v2_jax.planning.traffic import hbm_bytes

KB = 1024  # bytes of f32[256]


def bytes_of_last(*computations):
    program = module(*computations)
    entry = program.computations["main"]
    return hbm_bytes(entry.instructions[entry.root], entry, program)


def test_operands_are_read_and_the_result_is_written():
    x, y = "x = f32[256]{0} parameter(0)", "y = f32[512]{0} parameter(1)"
    assert bytes_of_last(main(x, y, "z = f32[768]{0} concatenate(%x, %y)")) == (1 + 2 + 3) * KB


def test_memory_on_the_chip_is_free():
    x = "x = f32[256]{0:S(1)} parameter(0)"
    assert bytes_of_last(main(x, "z = f32[512]{0} concatenate(%x, %x)")) == 2 * KB
    assert bytes_of_last(main(x, "z = f32[512]{0:S(1)} concatenate(%x, %x)")) == 0


def test_of_what_is_sliced_the_slices_are_read():
    x, i = "x = f32[12,256]{1,0} parameter(0)", "i = s32[] parameter(1)"
    sliced = "s = f32[1,256]{1,0} dynamic-slice(%x, %i, %i), dynamic_slice_sizes={1,256}"
    assert bytes_of_last(main(x, i, sliced)) == KB + 2 * 4 + KB


def test_a_fusion_that_slices_reads_no_more_than_the_slices():
    body = computation(
        "body",
        "x = f32[12,256]{1,0} parameter(0)",
        "i = s32[] parameter(1)",
        "view = f32[12,256]{1,0} bitcast(%x)",
        "s = f32[1,256]{1,0} dynamic-slice(%view, %i, %i), dynamic_slice_sizes={1,256}",
        "n = f32[1,256]{1,0} negate(%s)",
    )
    call = "f = f32[1,256]{1,0} fusion(%x, %i), kind=kLoop, calls=%body"
    x, i = "x = f32[12,256]{1,0} parameter(0)", "i = s32[] parameter(1)"
    assert bytes_of_last(body, main(x, i, call)) == KB + 4 + KB


def test_what_is_used_whole_somewhere_is_read_once():
    body = computation(
        "body",
        "x = f32[2,256]{1,0} parameter(0)",
        "s = f32[1,256]{1,0} slice(%x), slice={[0:1], [0:256]}",
        "n = f32[2,256]{1,0} negate(%x)",
        "r = f32[2,256]{1,0} add(%n, %s)",
    )
    call = "f = f32[2,256]{1,0} fusion(%x), kind=kLoop, calls=%body"
    assert bytes_of_last(body, main("x = f32[2,256]{1,0} parameter(0)", call)) == 2 * KB + 2 * KB


def test_of_what_is_updated_in_place_the_update_is_written():
    body = computation(
        "body",
        "x = f32[12,256]{1,0} parameter(0)",
        "u = f32[1,256]{1,0} parameter(1)",
        "i = s32[] parameter(2)",
        "d = f32[12,256]{1,0} dynamic-update-slice(%x, %u, %i, %i)",
    )
    parameters = ("x = f32[12,256]{1,0} parameter(0)", "u = f32[1,256]{1,0} parameter(1)", "i = s32[] parameter(2)")
    call = "f = f32[12,256]{1,0} fusion(%x, %u, %i), kind=kLoop, calls=%body"
    assert bytes_of_last(body, main(*parameters, call)) == KB + 4 + KB
