"""Where each test of the fault suite is, by the number of what it tests.

The numbers are those of the list of fifty faults that trusted systems are tested for.
`PLACES` names the tests, `NOT_HERE` what does not apply, and why. `links_test.py` sees
that every named test exists.
"""

FAULTS = 'tests/faults/'

# Number: the fault, and the tests (file, or file::function).
PLACES: dict[int, tuple[str, tuple[str, ...]]] = {
  1: (
    'kill -9 while a save is written',
    ('tests/checkpoints/kill_test.py', 'tests/verbs/train_kill_test.py'),
  ),
  2: ('kill -9 at random times over a run', ('tests/verbs/train_kill_test.py',)),
  3: (
    'kill -9 between commit and pruning',
    ('tests/checkpoints/kill_test.py::test_last_committed_step_survives',),
  ),
  4: (
    'SIGTERM to a single process',
    ('tests/verbs/stopped_test.py::test_training_saves_its_step_and_leaves',),
  ),
  5: (
    'SIGTERM to one of two processes',
    (
      'tests/processes/multihost_test.py'
      '::test_signal_to_one_stops_both_at_the_same_step',
    ),
  ),
  6: (
    'SIGTERM while sampling, evaluating, judging',
    (
      'tests/verbs/stopped_test.py'
      '::test_others_stop_between_batches_and_leave_nothing_half_done',
      'tests/verbs/stopped_test.py::test_judging_stops_between_batches',
    ),
  ),
  7: (
    'a second SIGTERM',
    (
      'tests/verbs/stopped_test.py'
      '::test_second_signal_leaves_the_last_checkpoint_intact',
    ),
  ),
  8: (
    'SIGINT twice and more',
    (FAULTS + 'signals_test.py::test_interrupts_at_random_times',),
  ),
  9: (
    'a peer dies',
    (
      'tests/processes/multihost_test.py'
      '::test_process_that_died_is_named_by_the_one_that_computes_with_it',
    ),
  ),
  10: (
    'a peer is stuck',
    (
      'tests/processes/multihost_test.py'
      '::test_process_that_hangs_is_named_within_the_limit',
    ),
  ),
  11: (
    'port taken, wrong coordinator address',
    (
      'tests/processes/joining_test.py::test_port_that_is_taken_is_named',
      'tests/processes/joining_test.py::test_coordinator_that_does_not_answer_is_named',
    ),
  ),
  12: (
    'processes with other options or code',
    (
      'tests/processes/multihost_test.py'
      '::test_other_options_are_named_in_all_processes',
      FAULTS + 'joining_test.py::test_processes_of_different_code',
    ),
  ),
  13: (
    'files of the newest step cut, empty, deleted',
    (FAULTS + 'damage_test.py::test_every_damaged_file_of_the_newest_step',),
  ),
  14: (
    'a flipped bit',
    (FAULTS + 'damage_test.py::test_every_flipped_bit_is_found',),
  ),
  15: (
    'stray and unfinished steps',
    ('tests/checkpoints/training_store_test.py::test_strays_do_not_count',),
  ),
  16: (
    'parameters that are not finite',
    ('tests/runs/opening_test.py',),
  ),
  17: (
    'a full disk',
    (
      FAULTS + 'saving_test.py::test_no_room',
      FAULTS + 'saving_test.py::test_a_save_that_fails_in_the_background',
      'tests/checkpoints/training_store_test.py'
      '::test_failure_in_the_background_surfaces',
    ),
  ),
  18: (
    'a read-only workdir, a file in its place',
    (
      FAULTS + 'saving_test.py::test_read_only_checkpoints',
      'tests/main_test.py::test_workdir_that_cannot_be',
    ),
  ),
  20: ('other numbers of devices', ('tests/parallel/sameness_test.py',)),
  21: (
    'another model',
    ('tests/checkpoints/training_store_test.py::test_restore_lists_what_does_not_fit',),
  ),
  22: ('self-conditioning added to a vanilla model', ('tests/runs/adapt_test.py',)),
  23: ('a format of another version', ('tests/checkpoints/digests_test.py',)),
  24: (
    'options changed between stop and resume',
    (
      'tests/runs/workdir_test.py::test_other_options_are_refused_by_name',
      FAULTS + 'provenance_test.py::test_other_options_may_be_taken_on',
    ),
  ),
  25: ('two runs in one workdir', ('tests/runs/workdir_test.py',)),
  26: (
    'gradients that are not finite',
    (
      'tests/training/guards_test.py',
      FAULTS + 'damage_test.py::test_a_loss_that_overflows',
    ),
  ),
  27: (
    'a spike of the loss',
    (
      'tests/training/guards_test.py'
      '::test_a_run_with_skipped_steps_is_resumed_in_the_same_bits',
    ),
  ),
  28: ('the order of data after a resume', ('tests/data/pipeline_test.py',)),
  29: ('data that are too few', ('tests/data/pipeline_test.py',)),
  30: (
    'data that changed since the checkpoint',
    (FAULTS + 'provenance_test.py::test_an_edited_source_file_is_refused',),
  ),
  31: ('damaged and hostile texts', ('tests/data/sources_test.py',)),
  32: ('token ids outside the vocabulary', ('tests/data/pipeline_test.py',)),
  33: ('the wrong tokenizer', ('tests/runs/opening_test.py',)),
  34: ('edges of the sampler', ('tests/diffusion/sampling_test.py',)),
  35: ('the laws of the draws', ('tests/diffusion/draws_test.py',)),
  36: ('the same samples on other devices', ('tests/parallel/sameness_test.py',)),
  37: ('mistakes on the command line', ('tests/command_line_test.py',)),
  38: ('options that contradict each other', ('tests/settings/options_test.py',)),
  39: ('a config file that fails', ('tests/command_line_test.py',)),
  40: (
    'lying safetensors',
    (
      'tests/checkpoints/safetensors_header_test.py',
      'tests/checkpoints/safetensors_files_test.py',
    ),
  ),
  41: ('pickles', ('tests/checkpoints/safetensors_files_test.py',)),
  42: ('hostile config.json', ('tests/checkpoints/model_config_test.py',)),
  43: ('round trips with other formats', ('tests/runs/converting_test.py',)),
  44: ('hostile texts in reports', ('tests/report/page_test.py',)),
  46: (
    'a compilation cache that others may write',
    ('tests/runs/compilation_cache_test.py',),
  ),
  48: (
    'a metrics file cut or damaged',
    (
      'tests/training/writer_test.py',
      FAULTS + 'damage_test.py::test_a_damaged_line_of_metrics',
    ),
  ),
  49: ('hostile words for the launch scripts', ('tests/launch/local_test.py',)),
}

NOT_HERE: dict[int, str] = {
  19: 'no clock is read: steps are numbers; a deleted middle step is part of 15',
  45: 'no secret is read: nothing asks for a token, and no tracker is called',
  47: 'no tracker that could be missing; TensorBoard files are written by ourselves',
  50: 'the soak of 300 steps with random kills is not written yet',
}
