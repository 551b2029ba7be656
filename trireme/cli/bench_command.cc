// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "trireme/cli/commands.h"
#include "trireme/data/tokenizer_bench.h"
#include "trireme/train/fields.h"
#include "trireme/train/summary.h"

namespace trireme::cli {
namespace {

struct BenchTokenizerArguments {
  TokenizerBenchOptions options;
  bool json = false;
};

void append_spread(const std::string& name, const ThroughputSpread& spread, Fields& fields) {
  fields.emplace_back(name + "_mb_per_s", spread.median);
  fields.emplace_back(name + "_p10_mb_per_s", spread.p10);
  fields.emplace_back(name + "_p90_mb_per_s", spread.p90);
}

int run_bench_tokenizer(const BenchTokenizerArguments& arguments) {
  const TokenizerBenchReport report = bench_tokenizer(arguments.options);
  Fields fields = {{"files", report.files},
                   {"bytes", report.bytes},
                   {"tokens", report.tokens},
                   {"vocab_size", report.vocab_size},
                   {"train_bytes", report.train_bytes},
                   {"train_seconds", report.train_seconds}};
  append_spread("encode", report.encode, fields);
  append_spread("encode_warm", report.encode_warm, fields);
  append_spread("decode", report.decode, fields);
  std::fputs((arguments.json ? to_json_line(fields) : format_table(fields)).c_str(), stdout);
  return 0;
}

void add_tokenizer(CLI::App& bench, Action& action) {
  auto arguments = std::make_shared<BenchTokenizerArguments>();
  TokenizerBenchOptions& options = arguments->options;
  options.text = "/usr/include";
  CLI::App* command =
      bench.add_subcommand("tokenizer", "encoding and decoding on one core, training on a sample");
  command->add_option("--text", options.text, "folder or file of text")->capture_default_str();
  command->add_option("--tokenizer", options.tokenizer,
                      "tokenizer.json (default: train one on the same text)");
  command->add_option("--vocab-size", options.train.vocab_size, "tokens of a trained tokenizer")
      ->capture_default_str();
  command->add_option("--repetitions", options.repetitions, "timed runs, at least 5")
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "one JSON object instead of a table");
  command->footer("Example:  trireme bench tokenizer --text /usr/include --json");
  command->callback(
      [arguments, &action] { action = [arguments] { return run_bench_tokenizer(*arguments); }; });
}

}  // namespace

void add_bench_command(CLI::App& app, Action& action, std::vector<std::string> command_line) {
  CLI::App* bench = app.add_subcommand("bench", "how fast the parts are on this machine");
  bench->require_subcommand(1);
  bench->footer("Example:  trireme bench comm --op all_reduce --ranks 2");
  add_bench_comm(*bench, action);
  add_bench_step(*bench, action, std::move(command_line));
  add_bench_ops(*bench, action);
  add_bench_ps(*bench, action);
  add_tokenizer(*bench, action);
}

}  // namespace trireme::cli
