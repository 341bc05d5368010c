/* tm_bench_gemm: sizes of a shape's products, what is counted, types; shapes by name. */
#include "support.h"

#include "lab/bench.h"
#include "model/model.h"

#include <stdlib.h>

static tm_bench_gemm_options tiny_bench(void) {
    tm_bench_gemm_options o;
    tm_options_default(tm_bench_gemm_option_table, &o);
    assert_ok(tm_options_set(tm_bench_gemm_option_table, &o, "shape", "tiny"));
    o.rows = 48;
    o.repeats = 3;
    return o;
}

static tm_status bench(const tm_bench_gemm_options *o, int precision, const tm_monitor *monitor,
                       tm_bench_gemm_report *report) {
    const tm_device_options where = {.name = "cpu", .threads = 1, .precision = precision};
    return tm_bench_gemm(&where, o, monitor, report);
}

static tm_model_info described(int shape) {
    const tm_device_options where = {.name = "cpu", .threads = 1};
    const tm__bench_source source = {.shape = shape};
    tm_device *device = NULL;
    tm_model_info info;
    assert_ok(tm_device_open(&where, &device));
    assert_ok(tm__bench_describe(&source, device, &info));
    tm_device_close(device);
    return info;
}

/* As the publishers count them. */
static void shapes_have_the_published_sizes(void **state) {
    (void)state;
    static const int64_t parameters[] = {134515008, 494032768, 6738415616};
    for (int shape = 0; shape < 3; shape++) assert_int_equal(described(shape).parameters, parameters[shape]);
    assert_string_equal(tm_bench_shape_name(TM_SHAPE_QWEN2_05B), "qwen2-0.5b");
    assert_string_equal(tm_bench_shape_name(TM_SHAPE_TINY), "tiny");
    assert_null(tm_bench_shape_name(5));
    assert_null(tm_bench_shape_name(-1));
}

/* Weights of all products are those of the model but for norms and biases, and for the output layer where it is tied.
 */
static void products_are_those_of_the_model(void **state) {
    (void)state;
    tm_device device = {.act = TM_F32};
    tm__products p = {.device = &device, .passes = 3};
    tm_model_info m = described(TM_SHAPE_SMOLLM_135M);
    double weights = 0, operations = 0;
    tm__products_layers(&p, &m, 2048, 1000);
    assert_int_equal(p.count, TM_BENCH_LAYERS);
    for (size_t i = 0; i < p.count; i++) {
        const tm_bench_layer *l = &p.layers[i];
        weights += (double)(l->in * l->out) * (i + 1 < p.count ? l->times : 1);
        operations += l->times * tm__products_operations(l);
        assert_int_equal(l->rows, i + 1 < p.count ? 2048 : (64 << 20) / 4 / 49152);
    }
    assert_true(weights == (double)m.parameters - 61 * 576); /* norms */
    const tm__bench_size size = {.model = m};
    assert_true(fabs(operations / (2 * tm__bench_pass(&size, 2048, 1000)) - 1) < 1e-12);
}

static void check_type(const tm_bench_gemm_report *r, const tm_bench_gemm_type *type, int passes) {
    double seconds = 0, operations = 0;
    for (size_t i = 0; i < r->layer_count; i++)
        for (int pass = 0; pass < TM_BENCH_PASSES; pass++) {
            const tm_bench_times *times = &type->times[i][pass];
            double done = 2.0 * (double)(r->layers[i].rows * r->layers[i].in * r->layers[i].out);
            assert_int_equal(times->count, pass < passes ? 3 : 0);
            if (pass >= passes) continue;
            assert_true(times->least > 0 && times->least <= times->median && times->median <= times->most);
            assert_true(fabs(type->flops[i][pass] * times->median / done - 1) < 1e-9);
            assert_true(type->flops[i][pass] <= r->frame.product_flops);
            seconds += r->layers[i].times * times->median;
            operations += r->layers[i].times * done;
        }
    assert_true(fabs(type->seconds / seconds - 1) < 1e-9);
    assert_true(fabs(type->figures.flops * seconds / operations - 1) < 1e-9);
    assert_true(fabs(type->figures.tokens * seconds - 48) < 1e-6);
    assert_true(type->figures.share > 0 && type->figures.share <= 1);
    assert_true(type->pass_flops[0] > 0 && isnan(type->pass_flops[2]) == (passes < 3));
}

static void types_are_counted(void **state) {
    (void)state;
    tm_bench_gemm_options o = tiny_bench();
    tm_bench_gemm_report r;
    assert_ok(bench(&o, TM_PRECISION_AUTO, NULL, &r));
    assert_int_equal(r.type_count, 3);
    assert_string_equal(r.types[0].name, "fp32");
    assert_string_equal(r.types[1].name, "bf16");
    assert_string_equal(r.types[2].name, "int8");
    for (size_t t = 0; t < 3; t++) check_type(&r, &r.types[t], t < 2 ? 3 : 1);
    assert_int_equal(r.frame.model.parameters, 34976);
    tm_bench_gemm_report_release(&r);
    o.repeats = 3;
    assert_ok(bench(&o, TM_PRECISION_BF16, NULL, &r));
    assert_int_equal(r.type_count, 1);
    check_type(&r, &r.types[0], 3);
    tm_bench_gemm_report_release(&r);
}

static bool always(void *user) {
    (void)user;
    return true;
}

static void wrong_use(void **state) {
    (void)state;
    tm_bench_gemm_options o = tiny_bench();
    tm_bench_gemm_report r;
    const tm_monitor stop = {.stop = always};
    assert_int_equal(bench(&o, TM_PRECISION_F32, &stop, &r), TM_INTERRUPTED);
    o.rows = 0;
    assert_int_equal(bench(&o, TM_PRECISION_F32, NULL, &r), TM_INVALID);
    o = tiny_bench();
    o.config = "/nowhere/config.json";
    assert_int_equal(bench(&o, TM_PRECISION_F32, NULL, &r), TM_NOT_FOUND);
    o.config = test_path("golden/repnoise/items.json");
    assert_int_not_equal(bench(&o, TM_PRECISION_F32, NULL, &r), TM_OK);
    o = tiny_bench();
    const tm_device_options where = {.name = "ref", .threads = 1, .precision = TM_PRECISION_F64};
    assert_int_equal(tm_bench_gemm(&where, &o, NULL, &r), TM_UNSUPPORTED);
}

static void survives_failing_allocations(void **state) {
    (void)state;
    tm_bench_gemm_options o = tiny_bench();
    tm_bench_gemm_report r;
    o.repeats = 1;
    for (long n = 1;; n += 3) {
        tm__alloc_fail_at(n, false);
        tm_status status = bench(&o, TM_PRECISION_AUTO, NULL, &r);
        tm__alloc_fail_at(0, false);
        if (status == TM_OK) {
            assert_true(n > 30);
            tm_bench_gemm_report_release(&r);
            return;
        }
        assert_int_equal(status, TM_NO_MEMORY);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_have_the_published_sizes),
        cmocka_unit_test(products_are_those_of_the_model),
        cmocka_unit_test(types_are_counted),
        cmocka_unit_test(wrong_use),
        cmocka_unit_test(survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
