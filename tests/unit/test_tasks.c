/* Every task is done by exactly one thread, in whatever order they come. (device/cpu/tasks.h) */
#include "support.h"

#include "device/cpu/tasks.h"

enum { THREADS = 9, TASKS = 600 };

static void done_once(int64_t count, int64_t threads, uint64_t seed) {
    tm__all_tasks all = {.count = count, .threads = threads};
    tm__rng rng = tm__rng_make(seed, tm__stream(TM__STREAM_TEST, 0));
    tm__tasks mine[THREADS];
    bool ended[THREADS] = {false};
    int64_t times[TASKS] = {0}, last[THREADS], left = threads;
    for (int64_t i = 0; i < threads; i++) {
        mine[i] = (tm__tasks){.all = &all};
        last[i] = -1;
    }
    while (left) {
        int64_t who = (int64_t)(tm__rng_u32(&rng) % (uint32_t)threads);
        if (ended[who]) continue;
        int64_t task = tm__next_task(&mine[who]);
        assert_true(task > last[who]);
        last[who] = task;
        if (task < count) {
            times[task]++;
        } else {
            ended[who] = true;
            left--;
        }
    }
    for (int64_t i = 0; i < count; i++) assert_int_equal(times[i], 1);
    assert_true(all.claimed <= count + threads);
}

static void test_done_once(void **state) {
    (void)state;
    for (int64_t count = 0; count < TASKS; count += 1 + count / 40)
        for (int64_t threads = 1; threads <= THREADS; threads++) done_once(count, threads, (uint64_t)(count * threads));
}

/* Fewer claims than tasks; and no run longer than what is left shared out twice, nor than the longest. */
static void test_runs(void **state) {
    (void)state;
    tm__all_tasks all = {.count = 36, .threads = 2};
    tm__tasks mine = {.all = &all};
    static const int64_t ends[] = {9, 15, 20, 24, 27, 29, 30};
    for (size_t i = 0; i < TM__COUNT(ends); i++) {
        do tm__next_task(&mine);
        while (mine.next < mine.end);
        assert_int_equal(mine.end, ends[i]);
    }
    all = (tm__all_tasks){.count = 3072, .threads = 2};
    mine = (tm__tasks){.all = &all};
    tm__next_task(&mine);
    assert_int_equal(mine.end, TM__LONGEST_RUN);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_done_once),
        cmocka_unit_test(test_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
