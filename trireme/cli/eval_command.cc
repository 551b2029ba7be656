// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <memory>
#include <numbers>
#include <string>

#include "trireme/cli/commands.h"
#include "trireme/cli/temporary_folder.h"
#include "trireme/comm/world.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/threads.h"
#include "trireme/topology/host.h"
#include "trireme/train/evaluator.h"
#include "trireme/train/prepare_data.h"
#include "trireme/train/saved_model.h"
#include "trireme/train/summary.h"

namespace trireme::cli {
namespace {

struct EvalArguments {
  std::string checkpoint;
  std::string text;
  std::int64_t batch = 8;
  int threads = 0;
  bool average = false;
  bool json = false;
};

// Encodes all of the text with the checkpoint's tokenizer into folder.
PrepareReport encode(const EvalArguments& arguments, const SavedModel& saved,
                     const std::string& folder) {
  PrepareOptions options;
  options.text = arguments.text;
  options.output = folder;
  options.tokenizer = saved.path + "/tokenizer.json";
  options.validation_fraction = 0;
  options.threads = usable_cores();
  const PrepareReport report = prepare_with_progress(options);
  report_preparation(options, report);
  return report;
}

int run_eval(const EvalArguments& arguments) {
  install_caching_allocator();
  set_compute_threads({.threads = arguments.threads > 0 ? arguments.threads : usable_cores()});
  keep_memory_pages();
  SavedModel saved = load_saved_model(
      arguments.checkpoint, arguments.average ? SavedWeights::kAverage : SavedWeights::kLast);
  const TemporaryFolder folder("trireme-eval");
  const PrepareReport report = encode(arguments, saved, folder.path() + "/data");

  const TokenShards shards(folder.path() + "/data", "train");
  const nn::ModelConfig& config = saved.model->config();
  const Evaluator evaluator(shards, config.context,
                            {.micro_batch_size = arguments.batch,
                             .max_micro_batches = std::numeric_limits<std::int32_t>::max(),
                             .separator = document_separator(config, saved.tokenizer)});
  const std::unique_ptr<Group> alone = join_world({});
  const Evaluation evaluation = evaluator.run(
      [&](const MicroBatch& batch) {
        return saved.model->loss(batch.inputs_BT, batch.targets_BT, batch.document_starts_BT)
            .item<double>();
      },
      *alone);
  const double tokens_per_byte =
      static_cast<double>(report.train_tokens) / static_cast<double>(report.bytes);
  const Fields fields = {{"checkpoint", saved.path},
                         {"step", saved.step},
                         {"files", report.files},
                         {"bytes", report.bytes},
                         {"tokens", evaluation.tokens},
                         {"loss", evaluation.loss},
                         {"perplexity", evaluation.perplexity()},
                         {"bits_per_byte", evaluation.loss * tokens_per_byte / std::numbers::ln2},
                         {"unigram_entropy", evaluation.unigram_entropy}};
  std::fputs((arguments.json ? to_json_line(fields) : format_table(fields)).c_str(), stdout);
  return 0;
}

}  // namespace

void add_eval_command(CLI::App& app, Action& action) {
  auto arguments = std::make_shared<EvalArguments>();
  CLI::App* command = app.add_subcommand("eval", "loss and perplexity of a checkpoint on text");
  command->add_option("checkpoint", arguments->checkpoint, "run folder or checkpoint")->required();
  command->add_option("text", arguments->text, "folder or file of text")->required();
  command->add_option("--batch", arguments->batch, "sequences computed together")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--threads", arguments->threads, "default: all cores")
      ->check(CLI::PositiveNumber);
  command->add_flag("--json", arguments->json, "one JSON object instead of a table");
  command->add_flag("--average", arguments->average,
                    "with the moving average of the weights (train.average_decay)");
  command->footer("Example:  trireme eval runs/first /usr/share/doc");
  command->callback(
      [arguments, &action] { action = [arguments] { return run_eval(*arguments); }; });
}

}  // namespace trireme::cli
