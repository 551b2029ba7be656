// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>

#include "trireme/cli/commands.h"
#include "trireme/topology/host.h"
#include "trireme/train/prepare_data.h"

namespace trireme::cli {

void add_tokenize_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<PrepareOptions>();
  options->threads = usable_cores();
  CLI::App* command =
      app.add_subcommand("tokenize", "turn a folder of text into token shards for training");
  command->add_option("text", options->text, "folder or file of text")->required();
  command->add_option("--out", options->output, "folder for the shards")->required();
  command->add_option("--tokenizer", options->tokenizer,
                      "tokenizer.json to use (default: train one on the text)");
  command->add_option("--vocab-size", options->train.vocab_size, "tokens of a trained tokenizer")
      ->capture_default_str();
  command
      ->add_option("--validation-fraction", options->validation_fraction,
                   "share of the text held out for evaluation")
      ->capture_default_str();
  command->add_option("--max-file-bytes", options->max_file_bytes, "larger files are skipped")
      ->capture_default_str();
  command->add_option("--seed", options->seed, "decides which files are held out")
      ->capture_default_str();
  command->add_option("--threads", options->threads, "threads that encode")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->footer(
      "Example:  trireme tokenize /usr/include --out data/headers --vocab-size 8192\n"
      "Then:     trireme train CONFIG data.tokens=data/headers out=runs/first");
  command->callback([options, &action] {
    action = [options] {
      report_preparation(*options, prepare_with_progress(*options));
      return 0;
    };
  });
}

}  // namespace trireme::cli
