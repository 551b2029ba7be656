// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/cli/commands.h"

namespace trireme::cli {
namespace {

constexpr int kUserError = 2;

void print_error(const std::string& message) {
  std::fprintf(stderr, "trireme: error: %s\n", message.c_str());
}

}  // namespace

int run(int argc, char** argv) {
  CLI::App app("Trains large language models on the machines that you have.", "trireme");
  app.require_subcommand(1);
  app.set_version_flag("--version", "trireme " TRIREME_VERSION);
  app.footer(
      "Start with:  trireme train examples/tiny.yaml data.text=FOLDER out=runs/first --workers 2");
  Action action;
  add_train_command(app, action, std::vector<std::string>(argv, argv + argc));
  add_tokenize_command(app, action);
  add_generate_command(app, action);
  add_eval_command(app, action);
  add_doctor_command(app, action);
  add_bench_command(app, action);
  try {
    app.parse(argc, argv);
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
