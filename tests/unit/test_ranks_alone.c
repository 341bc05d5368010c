/* A build without MPI: one process trains as ever, several are refused with a message. The transport without MPI is
 * linked into this program, whichever the build has taken. */
#include "support.h"

#include "ranks/ranks.h"

static void forget(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMI_SIZE", "PMI_RANK",
                                        "MV2_COMM_WORLD_SIZE",  "MV2_COMM_WORLD_RANK",  "PMIX_RANK"};
    for (size_t i = 0; i < TM__COUNT(names); i++) unsetenv(names[i]);
}

static void one_process(void **state) {
    (void)state;
    int rank = -1;
    forget();
    assert_int_equal(tm_ranks_launched(&rank), 1);
    assert_int_equal(rank, 0);
    for (int several = 0; several < 2; several++) {
        assert_ok(tm_ranks_open());
        assert_int_equal(tm_ranks_count(), 1);
        assert_int_equal(tm_ranks_rank(), 0);
        assert_ok(tm_ranks_agree(TM_OK));
        assert_int_equal(tm_ranks_agree(TM_IO), TM_IO);
        tm__meeting m = {.sum = 2.5, .most = 7, .stop = true, .what = "mark"};
        assert_ok(tm__ranks_meet(&m));
        assert_true(m.stop && m.sum == 2.5 && m.most == 7);
        setenv("PMI_SIZE", "1", 1); /* mpirun -n 1 */
        setenv("PMI_RANK", "0", 1);
    }
    assert_true(tm_ranks_fail(TM_IO, NULL));
    assert_false(tm_ranks_fail(TM_OK, NULL));
    assert_int_equal(tm_ranks_close(3), 3);
}

static void several_processes(void **state) {
    (void)state;
    static const char *const pairs[][2] = {{"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"}, {"PMI_SIZE", "PMI_RANK"}};
    for (size_t i = 0; i < TM__COUNT(pairs); i++) {
        int rank = -1;
        forget();
        setenv(pairs[i][0], "3", 1);
        setenv(pairs[i][1], "2", 1);
        assert_int_equal(tm_ranks_launched(&rank), 3);
        assert_int_equal(rank, 2);
        assert_int_equal(tm_ranks_open(), TM_UNSUPPORTED);
        assert_non_null(strstr(tm_error_last()->line, "3 processes were started together"));
        assert_non_null(strstr(tm_error_last()->line, "built without MPI"));
        assert_int_equal(tm_ranks_count(), 1);
        assert_false(tm_ranks_fail(TM_UNSUPPORTED, NULL)); /* rank 0 tells it */
        setenv(pairs[i][1], "0", 1);
        assert_true(tm_ranks_fail(TM_UNSUPPORTED, NULL));
        assert_int_equal(tm_ranks_close(7), 7);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_process), cmocka_unit_test(several_processes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
