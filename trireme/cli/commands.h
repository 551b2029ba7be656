// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The subcommands of the program, one file each, and how main() runs them.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace trireme::cli {

// What the command line asked for; returns the exit status. Set by the chosen subcommand.
using Action = std::function<int()>;

// Each adds its subcommand to the app. Parsing only stores options and sets action; nothing runs
// before parsing is done.
// command_line: argv, for the workers that it starts.
void add_train_command(CLI::App& app, Action& action, std::vector<std::string> command_line);
// program: what stood after -- on the command line.
void add_launch_command(CLI::App& app, Action& action, std::vector<std::string> program);
void add_serve_parameters_command(CLI::App& app, Action& action);
void add_simulate_command(CLI::App& app, Action& action);
void add_tokenize_command(CLI::App& app, Action& action);
void add_generate_command(CLI::App& app, Action& action, std::vector<std::string> command_line);
void add_eval_command(CLI::App& app, Action& action, std::vector<std::string> command_line);
void add_doctor_command(CLI::App& app, Action& action);
void add_bench_command(CLI::App& app, Action& action, std::vector<std::string> command_line);
// Of bench.
void add_bench_comm(CLI::App& bench, Action& action);
void add_bench_step(CLI::App& bench, Action& action, std::vector<std::string> command_line);
void add_bench_ops(CLI::App& bench, Action& action);
void add_bench_ps(CLI::App& bench, Action& action);

// Parses, runs, reports. Returns the exit status: 0 done, 2 the user's mistake, 1 anything else;
// errors are one line on stderr.
int run(int argc, char** argv);

}  // namespace trireme::cli
