// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <memory>
#include <string>

#include "trireme/cli/commands.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/threads.h"
#include "trireme/topology/host.h"
#include "trireme/train/generator.h"
#include "trireme/train/saved_model.h"

namespace trireme::cli {
namespace {

struct GenerateArguments {
  std::string checkpoint;
  std::string prompt;
  std::int64_t tokens = 256;
  SamplingOptions sampling;
  int threads = 0;
  bool average = false;
};

int run_generate(const GenerateArguments& arguments) {
  arguments.sampling.validate();
  install_caching_allocator();
  set_compute_threads({.threads = arguments.threads > 0 ? arguments.threads : usable_cores()});
  SavedModel saved = load_saved_model(
      arguments.checkpoint, arguments.average ? SavedWeights::kAverage : SavedWeights::kLast);
  Generator generator(*saved.model, saved.tokenizer, arguments.sampling);
  std::fwrite(arguments.prompt.data(), 1, arguments.prompt.size(), stdout);
  generator.run(arguments.prompt, arguments.tokens, [](std::string_view piece) {
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    return std::fflush(stdout) == 0;  // a closed pipe ends the text
  });
  std::fputc('\n', stdout);
  return 0;
}

}  // namespace

void add_generate_command(CLI::App& app, Action& action) {
  auto arguments = std::make_shared<GenerateArguments>();
  SamplingOptions& sampling = arguments->sampling;
  CLI::App* command = app.add_subcommand("generate", "let a trained model write");
  command->add_option("checkpoint", arguments->checkpoint, "run folder or checkpoint")->required();
  command->add_option("--prompt", arguments->prompt, "text to continue (default: start a new one)");
  command->add_option("--tokens", arguments->tokens, "tokens to write at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--temperature", sampling.temperature, "0: always the most probable token")
      ->capture_default_str();
  command->add_option("--top-k", sampling.top_k, "choose among the k most probable; 0: all")
      ->capture_default_str();
  command
      ->add_option("--top-p", sampling.top_p,
                   "choose among the most probable that reach this probability together")
      ->capture_default_str();
  command->add_option("--seed", sampling.seed, "the same seed writes the same text")
      ->capture_default_str();
  command->add_option("--threads", arguments->threads, "default: all cores")
      ->check(CLI::PositiveNumber);
  command->add_flag("--average", arguments->average,
                    "with the moving average of the weights (train.average_decay)");
  command->footer("Example:  trireme generate runs/first --prompt '#include <' --tokens 100");
  command->callback(
      [arguments, &action] { action = [arguments] { return run_generate(*arguments); }; });
}

}  // namespace trireme::cli
