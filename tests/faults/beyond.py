"""Faults beyond the list of fifty, and their tests: see `elsewhere.py`."""

from tests.faults.elsewhere import CHECKPOINTS, ONE_LINE, Fault, fault

FURTHER: tuple[Fault, ...] = (
  fault(
    'SIGTERM and SIGINT to a launcher of several processes',
    'passed on; what is left behind is ended',
    'tests/launch/local_multiprocess_test.py::test_signals_are_passed_on',
    'tests/launch/local_multiprocess_test.py'
    '::test_saved_on_a_signal_is_no_failure_and_waits_for_the_others',
    'tests/launch/local_multiprocess_test.py'
    '::test_what_a_process_leaves_behind_is_ended',
  ),
  fault(
    'a process of a launcher fails, or does not leave',
    'all end, with its exit code',
    'tests/launch/local_multiprocess_test.py'
    '::test_one_failing_ends_all_and_gives_its_exit_code',
    'tests/launch/local_multiprocess_test.py::test_one_that_does_not_leave_is_killed',
  ),
  fault(
    'one process fails while the other works',
    "its mistake is everybody's, in one line",
    'tests/processes/multihost_test.py'
    '::test_failure_of_one_ends_the_other_and_is_named',
    'tests/processes/multihost_test.py::test_mistake_of_the_first_is_everybodys',
  ),
  fault(
    'headers of GGUF files that lie',
    'refused at once',
    CHECKPOINTS + 'gguf_header_test.py::test_a_header_that_lies_is_refused_at_once',
    CHECKPOINTS + 'gguf_files_test.py::test_what_is_not_computed_is_refused_by_name',
  ),
  fault(
    'malformed conversations',
    'file and line, nothing is left',
    'tests/domains/text/chat_test.py::test_a_bad_line_is_named_and_nothing_is_left',
    'tests/domains/text/chat_test.py::test_a_bad_file_is_named',
  ),
  fault(
    'chat templates that do wrong',
    ONE_LINE,
    'tests/domains/text/chat_test.py::test_a_template_that_does_wrong_is_one_line',
  ),
  fault(
    'files of prompts that are none',
    'file and line',
    'tests/data/prompts_test.py::test_what_is_no_prompt_is_refused_with_its_line',
  ),
  fault(
    'a repository or revision that is not there',
    ONE_LINE,
    CHECKPOINTS + 'hub_test.py::test_what_is_not_there_is_one_line',
  ),
  fault(
    'tensors that are left out and say otherwise',
    'refused by name',
    'tests/runs/converting_test.py'
    '::test_what_is_left_out_and_says_otherwise_is_refused',
  ),
  fault(
    'masks of templates that are near misses or out of range',
    'refused with their place',
    'tests/data/tokenizers/template_test.py::test_near_misses_are_refused',
  ),
  fault(
    'an import or export that is interrupted or has no room',
    'no destination is left',
    'tests/runs/converting_test.py::test_damage_leaves_no_destination',
    'tests/runs/converting_test.py::test_a_damaged_gguf_file_leaves_nothing_behind',
    CHECKPOINTS + 'disk_test.py::test_interrupted_directory_leaves_the_old_one',
  ),
  fault(
    'a step that hangs',
    'all stacks are dumped',
    'tests/training/guards_test.py::test_stacks_are_dumped_where_a_step_hangs',
  ),
  fault(
    'the device has no memory left',
    'one line, exit 2',
    'tests/main_test.py::test_out_of_memory_is_told_in_one_line',
  ),
  fault(
    'a run in a bucket killed with kill -9',
    'the same bits, as many steps',
    'tests/buckets/steps_test.py::test_a_run_that_was_killed_goes_on_from_the_bucket',
    'tests/buckets/runs_test.py'
    '::test_a_killed_run_resumes_from_the_bucket_to_the_same_bits',
  ),
  fault(
    'a bucket that is missing, closed, or whose server is not there',
    ONE_LINE,
    'tests/buckets/runs_test.py::test_what_is_missing_is_one_line',
  ),
  fault(
    'a server of a bucket that dies, fails or is slow during a save',
    'one line and whole steps, or the same contents',
    'tests/buckets/faults_test.py::test_a_server_that_fails_during_a_save',
    'tests/buckets/faults_test.py::test_a_slow_server',
  ),
  fault(
    'two runs begun at once in one place of a bucket; the lock of a dead one',
    'at most one has it; taken over',
    'tests/buckets/mirror_test.py::test_one_of_two_runs_has_a_workdir',
    'tests/buckets/mirror_test.py::test_the_lock_of_a_dead_run_is_taken_over',
  ),
  fault(
    'a step or model in a bucket that is not whole',
    'it does not count',
    'tests/buckets/mirror_test.py::test_a_mirror_brings_over_what_is_complete',
  ),
)
