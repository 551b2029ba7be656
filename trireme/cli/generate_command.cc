// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <csignal>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "trireme/cli/commands.h"
#include "trireme/cli/own_workers.h"
#include "trireme/launch/init.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/train/generator.h"
#include "trireme/train/staged_model.h"

namespace trireme::cli {
namespace {

struct GenerateArguments {
  std::string checkpoint;
  std::string prompt;
  std::int64_t tokens = 256;
  SamplingOptions sampling;
  int threads = 0;
  int workers = 1;
  bool average = false;
};

int run_generate(const GenerateArguments& arguments, const std::vector<std::string>& command) {
  arguments.sampling.validate();
  check_stages(arguments.checkpoint, arguments.workers);
  std::signal(SIGPIPE, SIG_IGN);  // writing fails instead, and the workers end together
  if (const auto status = run_own_workers(arguments.workers, command)) return *status;
  install_caching_allocator();
  use_rank_threads(arguments.threads);
  const std::unique_ptr<Group> world = init();
  StagedModel model(arguments.checkpoint,
                    arguments.average ? SavedWeights::kAverage : SavedWeights::kLast, *world);
  Generator generator(
      [&](const at::Tensor& tokens, bool restart) { return model.decode(tokens, restart); },
      model.saved().model->config().context, model.saved().tokenizer, arguments.sampling);
  // The others compute the same text.
  const bool prints = world->rank() == 0;
  const auto print = [&](std::string_view text) {
    std::int64_t goes_on = 1;
    if (prints) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      goes_on = std::fflush(stdout) == 0 ? 1 : 0;  // a closed pipe ends the text, for all
    }
    world->broadcast(buffer_of(std::span(&goes_on, 1)), 0);
    return goes_on == 1;
  };
  print(arguments.prompt);
  generator.run(arguments.prompt, arguments.tokens, print);
  print("\n");
  world->close();
  return 0;
}

}  // namespace

void add_generate_command(CLI::App& app, Action& action, std::vector<std::string> command_line) {
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
  command->add_option("--workers", arguments->workers, "to start, with a part of the layers each")
      ->check(CLI::PositiveNumber);
  command->add_flag("--average", arguments->average,
                    "with the moving average of the weights (train.average_decay)");
  command->footer("Example:  trireme generate runs/first --prompt '#include <' --tokens 100");
  command->callback([arguments, &action, command_line = std::move(command_line)] {
    action = [arguments, command_line] { return run_generate(*arguments, command_line); };
  });
}

}  // namespace trireme::cli
