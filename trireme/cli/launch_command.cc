// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "trireme/base/config.h"
#include "trireme/base/error.h"
#include "trireme/cli/commands.h"
#include "trireme/launch/environment.h"
#include "trireme/launch/launch_request.h"
#include "trireme/launch/local_workers.h"

namespace trireme::cli {
namespace {

// A word before --: an option that launch does not have, or the program.
[[noreturn]] void refuse_word(const CLI::App& command, const std::string& word) {
  if (!word.starts_with('-')) {
    throw_error<ConfigError>(
        "launch does not know what '{0}' is: put -- before the program and its arguments, as in "
        "trireme launch -n 4 -- {0}",
        word);
  }
  std::vector<std::string> known;
  for (const CLI::Option* option : command.get_options()) known.push_back(option->get_name());
  const std::optional<std::string> nearest = nearest_word(word, known);
  throw_error<ConfigError>(
      "launch has no option '{}'{}; the program's own arguments come after -- and its name", word,
      nearest ? fmt::format(", did you mean '{}'", *nearest) : "");
}

}  // namespace

void add_launch_command(CLI::App& app, Action& action, std::vector<std::string> program) {
  auto request = std::make_shared<LaunchRequest>();
  request->command = std::move(program);
  CLI::App* command = app.add_subcommand("launch", "start any program as many ranks");
  command->add_option("-n,--workers", request->workers,
                      "processes to start on this host (default: 1), or auto: one per core");
  command->add_option("--servers", request->servers,
                      "parameter servers to start on this host beside the workers");
  command->add_option("--restarts", request->restarts,
                      "with --servers: how often each worker and server that dies is started again "
                      "(default: 0)");
  command->add_option("--nodes", request->nodes,
                      "hosts of the job; on each the same command starts as many workers");
  command->add_option("--node-rank", request->node_rank, "number of this host, from 0");
  command->add_option("--rendezvous", request->rendezvous,
                      "host:port, the same on all hosts: where node 0 listens");
  command
      ->add_option("--port", request->port,
                   "of the rendezvous on one host (default: any that is free)")
      ->check(CLI::Range(1, 65535));
  command->add_flag("--prefix", request->prefix,
                    "put [rank], [server index] or [coordinator] before each line that they print");
  command->add_option("--log-dir", request->log_folder,
                      "folder for what they print: rank-0.out, rank-0.err, server-0.out, ...");
  command->allow_extras();  // to be refused in our words
  command->footer(
      "Each worker is told its rank in the variables of Trireme and of torchrun. Hosts share a\n"
      "secret: export TRIREME_SECRET=..., the same on each, such as what openssl rand -hex 32\n"
      "prints.\n"
      "Example:  trireme launch -n 4 -- ./program --its-option 3\n"
      "          trireme launch --servers 1 -n 3 --restarts 2 -- ./program\n"
      "          trireme launch -n 4 --nodes 2 --node-rank 0 --rendezvous host0:29500 -- "
      "./program\n"
      "          trireme launch -n 4 --nodes 2 --node-rank 1 --rendezvous host0:29500 -- "
      "./program");
  command->callback([request, command, &action] {
    if (const std::vector<std::string> words = command->remaining(); !words.empty()) {
      refuse_word(*command, words.front());
    }
    action = [request] { return run_local_workers(plan_launch(*request, environment_variable)); };
  });
}

}  // namespace trireme::cli
