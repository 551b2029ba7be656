// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <ATen/Parallel.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <memory>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "trireme/cli/commands.h"
#include "trireme/cli/own_workers.h"
#include "trireme/cli/temporary_folder.h"
#include "trireme/comm/world.h"
#include "trireme/launch/init.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/threads.h"
#include "trireme/topology/host.h"
#include "trireme/train/evaluator.h"
#include "trireme/train/prepare_data.h"
#include "trireme/train/staged_model.h"
#include "trireme/train/summary.h"

namespace trireme::cli {
namespace {

struct EvalArguments {
  std::string checkpoint;
  std::string text;
  std::int64_t batch = 8;
  int threads = 0;
  int workers = 1;
  bool average = false;
  bool json = false;
};

// Encodes all of the text with the checkpoint's tokenizer into folder.
PrepareReport encode(const EvalArguments& arguments, const SavedModel& saved,
                     const std::string& folder, bool reports) {
  PrepareOptions options;
  options.text = arguments.text;
  options.output = folder;
  options.tokenizer = saved.path + "/tokenizer.json";
  options.validation_fraction = 0;
  options.threads = at::get_num_threads();  // this rank's share
  if (!reports) return prepare_tokens(options, [](const PrepareProgress&) {});
  const PrepareReport report = prepare_with_progress(options);
  report_preparation(options, report);
  return report;
}

int run_eval(const EvalArguments& arguments, const std::vector<std::string>& command) {
  check_stages(arguments.checkpoint, arguments.workers);
  if (const auto status = run_own_workers(arguments.workers, command)) return *status;
  install_caching_allocator();
  use_rank_threads(arguments.threads);
  keep_memory_pages();
  const std::unique_ptr<Group> world = init();
  const bool prints = world->rank() == 0;
  StagedModel model(arguments.checkpoint,
                    arguments.average ? SavedWeights::kAverage : SavedWeights::kLast, *world);
  const SavedModel& saved = model.saved();
  const TemporaryFolder folder("trireme-eval");
  const PrepareReport report = encode(arguments, saved, folder.path() + "/data", prints);

  const TokenShards shards(folder.path() + "/data", "train");
  const nn::ModelConfig& config = saved.model->config();
  const Evaluator evaluator(shards, config.context,
                            {.micro_batch_size = arguments.batch,
                             .max_micro_batches = std::numeric_limits<std::int32_t>::max(),
                             .separator = document_separator(config, saved.tokenizer)});
  const std::unique_ptr<Group> alone = join_world({});
  const Evaluation evaluation =
      evaluator.run([&](const MicroBatch& batch) { return model.loss(batch); }, *alone);
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
  world->close();
  if (!prints) return 0;
  std::fputs((arguments.json ? to_json_line(fields) : format_table(fields)).c_str(), stdout);
  return 0;
}

}  // namespace

void add_eval_command(CLI::App& app, Action& action, std::vector<std::string> command_line) {
  auto arguments = std::make_shared<EvalArguments>();
  CLI::App* command = app.add_subcommand("eval", "loss and perplexity of a checkpoint on text");
  command->add_option("checkpoint", arguments->checkpoint, "run folder or checkpoint")->required();
  command->add_option("text", arguments->text, "folder or file of text")->required();
  command->add_option("--batch", arguments->batch, "sequences computed together")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--threads", arguments->threads, "default: all cores")
      ->check(CLI::PositiveNumber);
  command->add_option("--workers", arguments->workers, "to start, with a part of the layers each")
      ->check(CLI::PositiveNumber);
  command->add_flag("--json", arguments->json, "one JSON object instead of a table");
  command->add_flag("--average", arguments->average,
                    "with the moving average of the weights (train.average_decay)");
  command->footer("Example:  trireme eval runs/first /usr/share/doc");
  command->callback([arguments, &action, command_line = std::move(command_line)] {
    action = [arguments, command_line] { return run_eval(*arguments, command_line); };
  });
}

}  // namespace trireme::cli
