/* Reports: p of Student's t and Holm's correction against known values, pictures by gnuplot and their colours in a
 * page, event files byte for byte.
 */
#include "support.h"

#include "lab/events.h"
#include "lab/plot.h"
#include "lab/sheet.h"
#include "lab/stats.h"

#include <stdlib.h>
#include <unistd.h>

static void assert_near(double a, double b, double error) {
    if (!(fabs(a - b) <= error)) fail_msg("%.12g is not %.12g", a, b);
}

/* Quantiles of any table of t, and values of the closed forms for 1 and 2 degrees. */
static void test_student(void **state) {
    (void)state;
    static const double rows[][3] = {
        {12.7062047364, 1, .05}, {4.3026527297, 2, .05}, {2.7764451052, 4, .05},   {2.2281388520, 10, .05},
        {2.0422724563, 30, .05}, {9.9248432009, 2, .01}, {1.9839715185, 100, .05}, {0, 7, 1},
        {-2.7764451052, 4, .05}};
    for (size_t i = 0; i < TM__COUNT(rows); i++) assert_near(tm__student_p(rows[i][0], rows[i][1]), rows[i][2], 1e-9);
    for (double t = .1; t < 50; t *= 1.7) {
        assert_near(tm__student_p(t, 1), 1 - 2 * atan(t) / acos(-1), 1e-13);
        assert_near(tm__student_p(t, 2), 1 - t / sqrt(2 + t * t), 1e-13);
    }
}

static void test_paired(void **state) {
    (void)state;
    const double some[] = {1, 2, 3, 4}, same[] = {.5, .5, .5}, none[] = {0, 0, 0};
    /* mean 2.5, standard error sqrt(5/3)/2, t = 3.87298, 3 degrees */
    assert_near(tm__paired_p(some, 4), .030466291662170, 1e-12);
    assert_true(isnan(tm__paired_p(same, 3)));
    assert_true(tm__paired_p(none, 3) == 1);
    assert_true(isnan(tm__paired_p(some, 1)));
}

static void test_holm(void **state) {
    (void)state;
    double p[] = {.01, NAN, .04, .03, .005}, one[] = {.2}, many[] = {.5, .6, .7};
    static const double want[] = {.03, NAN, .06, .06, .02};
    tm__holm(p, 5);
    for (int i = 0; i < 5; i++) {
        if (i == 1)
            assert_true(isnan(p[i]));
        else
            assert_near(p[i], want[i], 1e-15);
    }
    tm__holm(one, 1);
    assert_true(one[0] == .2);
    tm__holm(many, 3);
    for (int i = 0; i < 3; i++) assert_true(many[i] == 1);
}

/* CRCs of RFC 3720, appendix B.4; a file of one number, as TensorBoard's own writer makes it but for the time. */
static void test_events(void **state) {
    (void)state;
    unsigned char zeros[32] = {0}, ones[32], rising[32];
    memset(ones, 0xff, 32);
    for (int i = 0; i < 32; i++) rising[i] = (unsigned char)i;
    assert_int_equal(tm__crc32c(zeros, 32), 0x8a9136aa);
    assert_int_equal(tm__crc32c(ones, 32), 0x62a8ab43);
    assert_int_equal(tm__crc32c(rising, 32), 0x46dd794e);
    tm__string out = {0};
    assert_true(tm__events_begin(&out, 1) && tm__events_add(&out, 1, 300, "loss", .5));
    static const unsigned char want[] = {24,   0,    0,    0,    0,   0,   0,   0, /* length, then its CRC */
                                         0xa3, 0x7f, 0x4b, 0x22, 9,   0,   0,   0,   0,   0,   0,   0xf0, 0x3f, 0x1a,
                                         13,   'b',  'r',  'a',  'i', 'n', '.', 'E', 'v', 'e', 'n', 't',  ':',  '2'};
    assert_memory_equal(out.data, want, sizeof want);
    static const unsigned char event[] = {9,    0,  0,    0, 0,   0,   0,   0xf0, 0x3f, 0x10, 0xac, 2, 0x2a, 13,
                                          0x0a, 11, 0x0a, 4, 'l', 'o', 's', 's',  0x15, 0,    0,    0, 0x3f};
    assert_int_equal(out.len, 16 + 24 + 16 + sizeof event);
    assert_int_equal((unsigned char)out.data[40], sizeof event);
    assert_memory_equal(out.data + 52, event, sizeof event);
    tm__string_free(&out);
}

/* Commas and quotes in names, also of the columns that a mean brings along; small p; what is no number. */
static void test_sheet(void **state) {
    (void)state;
    static const struct {
        int form;
        const char *text;
    } want[] = {
        {TM_RESULTS_CSV, "\"a, \"\"b\"\"\",\"m, 1\",\"m, 1_half\",\"m, 1_n\",p\nx%,1000.5,0.25,3,0.0001\n,,,0,0.5\n"},
        {TM_RESULTS_TEXT,
         "a, \"b\"            m, 1        p\nx%      1000.50 ± 0.25  < 0.001\n                          0.500\n"},
        {TM_RESULTS_LATEX,
         "% needs \\usepackage{booktabs}\n\\begin{tabular}{lrr}\n\\toprule\na, \"b\" & m, 1 & p \\\\\n\\midrule\n"
         "x\\% & $1000.50 \\pm 0.25$ & $< 0.001$ \\\\\n &  & $0.500$ \\\\\n\\bottomrule\n\\end{tabular}\n"},
    };
    tm__sheet s = {0};
    tm__sheet_column(&s, "a, \"b\"", TM__CELL_TEXT, 0);
    tm__sheet_column(&s, "m, 1", TM__CELL_MEAN, 2);
    tm__sheet_column(&s, "p", TM__CELL_P, 3);
    tm__sheet_text(&s, "x%");
    tm__sheet_mean(&s, 1000.5, .25, 3);
    tm__sheet_number(&s, .0001);
    tm__sheet_text(&s, NULL);
    tm__sheet_mean(&s, NAN, NAN, 0);
    tm__sheet_number(&s, .5);
    for (size_t i = 0; i < TM__COUNT(want); i++) {
        tm__string out = {0};
        assert_ok(tm__sheet_write(&s, want[i].form, &out));
        assert_string_equal(out.data, want[i].text);
        tm__string_free(&out);
    }
    tm__sheet_release(&s);
}

static bool has_gnuplot(void) {
    return system("gnuplot --version >/dev/null 2>&1") == 0;
}

static const double xs[] = {1, 10, 100}, ys[] = {.1, .5, NAN};
static const tm__series series[] = {
    {"it's <one>", TM__MARK_POINT, xs, ys, 3}, {"two", TM__MARK_LINE, xs, ys, 3}, {"front", TM__MARK_FRONT, xs, ys, 2}};
static const tm__plot plot = {.x = "cost", .y = "harm", .log_x = true, .share_y = true, .series = series, .count = 3};

static void test_plot(void **state) {
    (void)state;
    char *path = tm__path_join(test_scratch(), "picture"), *text, *png = tm__format("%s.png", path);
    char *script = tm__format("%s.gp", path);
    size_t len;
    tm_status status = tm__plot_draw(&plot, path);
    assert_int_equal(status, has_gnuplot() ? TM_OK : TM_UNSUPPORTED);
    assert_ok(tm__file_read(script, 0, &text, &len));
    assert_non_null(strstr(text, "title 'it''s <one>'"));
    assert_null(strstr(text, "nan"));
    free(text);
    if (status == TM_OK) {
        tm__string page = {0};
        assert_ok(tm__file_read(png, 0, &text, &len));
        assert_memory_equal(text, "\x89PNG", 4);
        free(text);
        assert_ok(tm__plot_inline(path, "a picture", &page));
        assert_int_equal(strncmp(page.data, "<svg role=\"img\" aria-label=\"a picture\"", 38), 0);
        assert_non_null(strstr(page.data, "var(--ink)"));
        assert_non_null(strstr(page.data, "var(--paper)"));
        assert_non_null(strstr(page.data, "var(--c0)"));
        assert_non_null(strstr(page.data, "var(--c1)"));
        assert_null(strstr(page.data, "rgb( 11,  98, 164)"));
        assert_non_null(strstr(page.data, "it's &lt;one>"));
        tm__string_free(&page);
    }
    free(path);
    free(png);
    free(script);
}

/* Without gnuplot on the path: told, not failed. */
static void test_without_gnuplot(void **state) {
    (void)state;
    char *path = tm__path_join(test_scratch(), "picture"), *kept = strdup(getenv("PATH"));
    setenv("PATH", "/nowhere", 1);
    assert_int_equal(tm__plot_draw(&plot, path), TM_UNSUPPORTED);
    assert_string_equal(tm_error_last()->field, "gnuplot");
    setenv("PATH", kept, 1);
    free(kept);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sheet),  cmocka_unit_test(test_student), cmocka_unit_test(test_paired),
        cmocka_unit_test(test_holm),   cmocka_unit_test(test_plot),    cmocka_unit_test(test_without_gnuplot),
        cmocka_unit_test(test_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
