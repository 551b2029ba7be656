// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/base/config.h"
#include "trireme/base/error.h"
#include "trireme/cli/commands.h"

namespace trireme::cli {
namespace {

constexpr int kUserError = 2;

void print_error(const std::string& message) {
  std::fprintf(stderr, "trireme: error: %s\n", message.c_str());
}

// CLI11 only says that a subcommand is required.
void check_command(const CLI::App& app, const std::string& word) {
  std::vector<std::string> known;
  for (const CLI::App* command : app.get_subcommands({})) known.push_back(command->get_name());
  if (word.starts_with('-') || std::find(known.begin(), known.end(), word) != known.end()) return;
  const std::optional<std::string> nearest = nearest_word(word, known);
  throw_error<ConfigError>("there is no command '{}'{}; the commands are {}", word,
                           nearest ? fmt::format(", did you mean '{}'", *nearest) : "",
                           fmt::join(known, ", "));
}

// How many words of the command line are ours: what launch starts stands after --, and has its own
// options.
int count_own_words(int argc, char** argv) {
  if (argc < 2 || std::string_view(argv[1]) != "launch") return argc;
  return static_cast<int>(std::find(argv, argv + argc, std::string_view("--")) - argv);
}

}  // namespace

int run(int argc, char** argv) {
  CLI::App app("Trains large language models on the machines that you have.", "trireme");
  app.require_subcommand(1);
  app.set_version_flag("--version", "trireme " TRIREME_VERSION);
  app.footer(
      "Start with:  trireme train examples/tiny.yaml data.text=FOLDER out=runs/first --workers 2");
  Action action;
  const std::vector<std::string> command_line(argv, argv + argc);
  const int own = count_own_words(argc, argv);
  add_train_command(app, action, command_line);
  add_launch_command(app, action,
                     std::vector<std::string>(argv + std::min(own + 1, argc), argv + argc));
  add_serve_parameters_command(app, action);
  add_simulate_command(app, action);
  add_tokenize_command(app, action);
  add_generate_command(app, action, command_line);
  add_eval_command(app, action, command_line);
  add_doctor_command(app, action);
  add_bench_command(app, action, command_line);
  try {
    if (argc > 1) check_command(app, argv[1]);
    app.parse(own, argv);
    return action();
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    print_error(std::string(error.what()) + " (see trireme --help)");
    return kUserError;
  } catch (const std::exception& error) {
    print_error(error.what());
    return exit_code(error);
  }
}

}  // namespace trireme::cli
