"""Where each test of the fault suite is.

`FIFTY` has the faults that trusted systems are tested for, by the number of the list;
`NOT_HERE` what does not apply, and why; `beyond.py` has those beyond the list.
`links_test.py` sees that every named test exists, `table.py` runs them: each of their
cases is a fault that was injected. Tests in this folder note lines of their own.
"""

from typing import NamedTuple

HERE = 'tests/faults/'
CHECKPOINTS = 'tests/checkpoints/'


class Fault(NamedTuple):
  """What goes wrong, what is expected, and the tests (file::function)."""

  what: str
  expected: str
  tests: tuple[str, ...]


def fault(what: str, expected: str, *tests: str) -> Fault:
  """Returns the record of a fault."""
  return Fault(what, expected, tests)


ONE_LINE = 'one line that names it'
GOES_ON = 'the last committed step counts'

FIFTY: dict[int, Fault] = {
  1: fault(
    'kill -9 while a save is written, committed or pruned',
    GOES_ON,
    CHECKPOINTS + 'kill_test.py::test_last_committed_step_survives',
  ),
  2: fault(
    'kill -9 in a save, at a random step and while the model is written',
    'the same bits',
    'tests/verbs/train_kill_test.py'
    '::test_killed_runs_end_where_an_uninterrupted_one_does',
    HERE + 'soak_test.py::test_300_steps_with_saves_samples_and_random_kills',
  ),
  3: fault(
    'kill -9 between commit and pruning',
    GOES_ON,
    CHECKPOINTS + 'kill_test.py::test_last_committed_step_survives',
  ),
  4: fault(
    'SIGTERM to a single process',
    'its step is saved, exit 75, the same bits when resumed',
    'tests/verbs/stopped_test.py::test_training_saves_its_step_and_leaves',
    'tests/verbs/stopped_test.py::test_stopped_run_ends_in_the_same_bits',
  ),
  5: fault(
    'SIGTERM to one of two processes',
    'both stop at the same step',
    'tests/processes/multihost_test.py::test_signal_to_one_stops_both_at_the_same_step',
  ),
  6: fault(
    'SIGTERM while sampling, evaluating, judging',
    'they stop between batches, nothing is half done',
    'tests/verbs/stopped_test.py'
    '::test_others_stop_between_batches_and_leave_nothing_half_done',
    'tests/verbs/stopped_test.py::test_judging_stops_between_batches',
  ),
  7: fault(
    'a second SIGTERM',
    'the end at once, the last checkpoint intact',
    'tests/verbs/stopped_test.py::test_second_signal_leaves_the_last_checkpoint_intact',
    'tests/processes/stopping_test.py'
    '::test_second_signal_ends_a_program_that_is_deep_in_compiled_code',
  ),
  8: fault(
    'SIGINT once and more',
    ONE_LINE,
    HERE + 'signals_test.py::test_interrupts_at_random_times',
  ),
  9: fault(
    'a process of the run dies',
    'the other names it, exit 4',
    'tests/processes/multihost_test.py'
    '::test_process_that_died_is_named_by_the_one_that_computes_with_it',
  ),
  10: fault(
    'a process of the run hangs, is late, or takes no step',
    'it is named within the limit, exit 4',
    'tests/processes/multihost_test.py'
    '::test_process_that_hangs_is_named_within_the_limit',
    'tests/processes/multihost_test.py::test_late_process_is_named_by_the_barrier',
    'tests/processes/multihost_test.py'
    '::test_process_that_lives_but_stands_still_is_named_within_the_limit',
  ),
  11: fault(
    'the port is taken, or the address is wrong',
    'address named, within the limit',
    'tests/processes/joining_test.py::test_port_that_is_taken_is_named',
    'tests/processes/joining_test.py::test_coordinator_that_does_not_answer_is_named',
  ),
  12: fault(
    'processes of other options',
    'both exit 2, the option named',
    'tests/processes/multihost_test.py::test_other_options_are_named_in_all_processes',
    HERE + 'joining_test.py::test_processes_of_different_code',
  ),
  13: fault(
    'files of the newest step cut, empty, deleted',
    'named',
    HERE + 'damage_test.py::test_every_damaged_file_of_the_newest_step',
  ),
  14: fault(
    'a flipped bit', 'found', HERE + 'damage_test.py::test_every_flipped_bit_is_found'
  ),
  15: fault(
    'stray and unfinished steps beside sound ones',
    'they do not count',
    CHECKPOINTS + 'training_store_test.py::test_strays_do_not_count',
  ),
  16: fault(
    'weights that are NaN or infinite, in a checkpoint, at import, in a GGUF file',
    'named, not used',
    'tests/runs/opening_test.py::test_weights_that_are_not_finite_are_not_used',
    'tests/runs/converting_test.py'
    '::test_weights_that_are_not_finite_are_told_at_import',
    'tests/runs/converting_test.py::test_weights_of_half_precision_are_looked_at',
    'tests/runs/converting_test.py::test_a_gguf_file_with_nan_is_told',
  ),
  17: fault(
    'the disk is full while a directory is written',
    'one line with the free bytes, the old one stays',
    CHECKPOINTS + 'disk_test.py::test_full_disk_is_one_line_with_the_free_space',
    CHECKPOINTS + 'safetensors_writer_test.py::test_a_full_disk_leaves_nothing',
    CHECKPOINTS + 'training_store_test.py::test_failure_in_the_background_surfaces',
  ),
  18: fault(
    'a workdir that is a file, below a file, read-only, or not ours',
    'exit 2, named',
    'tests/main_test.py::test_workdir_that_cannot_be',
    'tests/runs/workdir_test.py::test_a_file_is_refused',
    'tests/runs/workdir_test.py::test_below_a_file_is_refused',
    'tests/runs/workdir_test.py::test_a_read_only_directory_is_refused',
  ),
  20: fault(
    'a checkpoint on other numbers of devices',
    'the same losses and samples',
    'tests/parallel/sameness_test.py'
    '::test_training_and_samples_do_not_depend_on_the_mesh',
  ),
  21: fault(
    'a checkpoint of another model',
    'every array that does not fit is listed',
    CHECKPOINTS + 'training_store_test.py::test_restore_lists_what_does_not_fit',
    'tests/verbs/train_test.py::test_a_checkpoint_that_does_not_fit',
  ),
  22: fault(
    'self-conditioning added to a model without it',
    'at first the same outputs',
    'tests/runs/adapt_test.py::test_identity_at_the_start',
  ),
  23: fault(
    'manifests of digests that lie or are damaged',
    ONE_LINE,
    CHECKPOINTS + 'digests_test.py::test_bad_manifests',
    CHECKPOINTS + 'digests_test.py::test_every_damage_is_named',
  ),
  24: fault(
    'options changed between stop and resume',
    'refused by name, or taken on by name',
    'tests/runs/workdir_test.py::test_other_options_are_refused_by_name',
    HERE + 'provenance_test.py::test_what_changed_is_refused_or_taken_on',
  ),
  25: fault(
    'two runs in one workdir',
    'the second is refused; a dead one holds nothing',
    'tests/runs/workdir_test.py::test_a_second_run_is_refused_while_the_first_lasts',
    'tests/runs/workdir_test.py::test_the_lock_goes_with_the_process',
    'tests/main_test.py::test_workdir_in_use',
  ),
  26: fault(
    'gradients that are not finite',
    'the step changes nothing; the end after so many in a row',
    'tests/training/guards_test.py'
    '::test_a_step_that_is_not_finite_changes_nothing_but_its_number',
    'tests/training/guards_test.py::test_so_many_in_a_row_and_no_more',
  ),
  27: fault(
    'a spike of loss or gradient',
    'the step changes nothing; the same bits when resumed',
    'tests/training/guards_test.py::test_a_step_above_its_limit_changes_nothing',
    'tests/training/guards_test.py'
    '::test_a_run_with_skipped_steps_is_resumed_in_the_same_bits',
  ),
  28: fault(
    'a resume at any batch, at the end of an epoch, by several processes',
    'the same next batches',
    'tests/data/pipeline_test.py::test_resume_is_exact',
    'tests/data/pipeline_test.py::test_processes_partition_every_global_batch',
  ),
  29: fault(
    'data of less than a batch, or none',
    'equal counts everywhere, or one line',
    'tests/data/pipeline_test.py::test_heldout_of_less_than_a_batch',
    'tests/data/pipeline_test.py::test_heldout_refuses_an_empty_dataset',
    'tests/data/pipeline_test.py'
    '::test_impossible_arguments_are_refused_before_iterating',
  ),
  30: fault(
    'data that changed since the checkpoint',
    'refused by name',
    HERE + 'provenance_test.py::test_an_edited_source_file_is_refused',
  ),
  31: fault(
    'prepared data cut, changed, empty, gone; texts that are none',
    ONE_LINE,
    'tests/data/sources_test.py'
    '::test_damaged_files_are_named_with_the_directory_to_delete',
    'tests/data/reading_test.py::test_what_is_cut_short_is_damage',
    'tests/data/reading_test.py::test_what_is_no_text_is_named_with_its_place',
    'tests/data/documents_test.py::test_any_bytes_are_documents_or_one_line',
  ),
  32: fault(
    'token ids outside the vocabulary',
    'the record and the id are named',
    'tests/data/pipeline_test.py'
    '::test_id_outside_the_vocabulary_is_named_with_its_record',
  ),
  33: fault(
    'a tokenizer of another model, damaged, or without a mask',
    ONE_LINE,
    'tests/runs/opening_test.py::test_models_of_another_tokenizer',
    'tests/runs/opening_test.py::test_a_tokenizer_without_a_mask_cannot_sample',
    'tests/data/tokenizers/damaged_test.py::test_altered_bytes',
    'tests/data/tokenizers/damaged_test.py::test_other_values_of_fields',
  ),
  34: fault(
    'edges of the sampler: nothing masked, one step, prompts, tiny temperatures',
    'those of a plain loop; prompts stay',
    'tests/diffusion/sampling_test.py::test_nothing_to_do',
    'tests/diffusion/sampling_test.py::test_prompt_and_revealed_tokens_never_change',
    'tests/diffusion/draws_test.py::test_banned_tokens_are_never_drawn',
    'tests/diffusion/draws_test.py::test_a_tiny_nucleus_or_temperature_is_greedy',
  ),
  35: fault(
    'draws of rare tokens',
    'the exact law',
    'tests/diffusion/draws_test.py::test_rare_tokens_come_at_their_rate',
  ),
  36: fault(
    'the same seed in another batch',
    'the same samples',
    'tests/diffusion/sampling_test.py::test_samples_do_not_depend_on_the_batch',
  ),
  37: fault(
    'mistakes on the command line and in options',
    'exit 2, the nearest name',
    'tests/command_line_test.py::test_mistakes_on_the_command_line',
    'tests/settings/options_test.py::test_usual_misspellings',
    'tests/settings/options_test.py::test_wrong_types_are_named',
  ),
  38: fault(
    'options that contradict each other',
    'both are named',
    'tests/settings/options_test.py::test_contradictions_name_both_options',
  ),
  39: fault(
    'a config file that fails',
    'exit 2 with its line',
    'tests/command_line_test.py::test_config_file_that_fails',
    'tests/command_line_test.py::test_config_file_that_is_not_there',
  ),
  40: fault(
    'safetensors and indices that lie',
    'refused by name, nothing allocated',
    CHECKPOINTS + 'safetensors_header_test.py::test_lies_are_named',
    CHECKPOINTS + 'safetensors_header_test.py::test_lies_allocate_nothing',
    CHECKPOINTS + 'safetensors_files_test.py::test_damaged_files_are_named',
    CHECKPOINTS + 'safetensors_files_test.py::test_index_cannot_leave_the_directory',
    CHECKPOINTS + 'safetensors_files_test.py::test_links_cannot_leave_the_directory',
  ),
  41: fault(
    'pickles',
    'refused unopened',
    CHECKPOINTS + 'safetensors_files_test.py::test_pickles_are_never_opened',
    'tests/verbs/verify_test.py::test_nothing_in_a_reference_is_unpickled',
  ),
  42: fault(
    'hostile config.json',
    'the field is named',
    CHECKPOINTS + 'model_config_test.py::test_bad_values_name_the_field',
    CHECKPOINTS + 'safetensors_files_test.py::test_bad_config_json',
  ),
  43: fault(
    'round trips with other formats',
    'bitwise',
    'tests/runs/converting_test.py::test_import_then_export_is_bitwise',
  ),
  44: fault(
    'hostile texts in reports and tables',
    'shown, not run',
    'tests/report/compare_test.py::test_hostile_texts_are_shown_not_run',
    'tests/report/table_test.py::test_text_table_makes_escape_sequences_visible',
    'tests/report/text_test.py::test_escape_covers_markup_and_both_quotes',
  ),
  45: fault(
    'tokens and keys in the environment',
    'in no file and no line',
    HERE + 'quiet_test.py::test_no_secret_is_written_and_nothing_is_fetched',
  ),
  46: fault(
    'a compilation cache that others may write',
    'refused',
    'tests/runs/compilation_cache_test.py'
    '::test_directory_that_others_may_write_to_is_refused',
  ),
  48: fault(
    'a metrics file cut or damaged',
    'sound lines stay',
    'tests/training/writer_test.py'
    '::test_a_last_line_cut_short_is_ignored_and_overwritten',
    'tests/training/writer_test.py::test_a_damaged_line_costs_no_other',
  ),
  49: fault(
    'hostile words for the launch scripts',
    'they arrive word for word',
    'tests/launch/local_multiprocess_test.py::test_words_arrive_as_they_were_given',
    'tests/launch/gke_test.py::test_one_jobset_with_the_command_word_for_word',
    'tests/launch/gke_test.py::test_name_that_kubernetes_refuses_is_refused',
    'tests/launch/scripts_test.py'
    '::test_without_arguments_it_is_one_line_and_exit_code_2',
  ),
  50: fault(
    'a long run with kills',
    'nothing grows',
    HERE + 'soak_test.py::test_300_steps_with_saves_samples_and_random_kills',
  ),
}

NOT_HERE: dict[int, str] = {
  19: 'no clock is read: steps are numbers; a deleted middle step is part of 15',
  47: 'no tracker that could be missing; TensorBoard files are written by ourselves',
}
