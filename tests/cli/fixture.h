// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A folder with text, a config of a very small model, and the program, for the end-to-end tests.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/files.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/deadline.h"
#include "trireme/base/random.h"

namespace trireme::testing {

inline const std::string kTrireme = TRIREME_BINARY_DIR "/trireme";

// Text with structure to learn: lines of a small grammar, different in each file.
inline void write_corpus(const std::string& folder, int files, int lines) {
  static const std::vector<std::string> kWords = {"alpha", "bravo",   "charlie", "delta", "echo",
                                                  "fox",   "golf",    "hotel",   "india", "juliet",
                                                  "kilo",  "lima \t", "mike",    "été",   "東京"};
  std::filesystem::create_directories(folder);
  for (int file = 0; file < files; ++file) {
    const RandomStream random(7, static_cast<std::uint64_t>(file));
    std::string text;
    std::uint64_t word = random.bits(1000000) % kWords.size();
    for (int i = 0; i < lines * 6; ++i) {
      word = (word * 3 + random.bits(static_cast<std::uint64_t>(i)) % 3) % kWords.size();
      text += kWords[word] + (i % 6 == 5 ? ";\n" : " ");
    }
    write_text(folder + "/file" + std::to_string(file) + ".txt", text);
  }
}

class CliTest : public ::testing::Test {
 protected:
  void SetUp() override {
    write_corpus(text(), 12, 60);
    write_text(config(),
               "data: {vocab_size: 320, validation_fraction: 0.1}\n"
               "model: {family: gpt2, layers: 2, width: 24, heads: 3, context: 20}\n"
               "batch: {micro_batch_size: 3, micro_batches: 4}\n"
               "train: {steps: 12}\n"
               "schedule: {learning_rate: 0.01, warmup_steps: 2}\n"
               "evaluation: {every: 5, micro_batches: 3}\n"
               "checkpoint: {every: 4, keep: 2}\n"
               "compute: {threads: 1}\n");
  }

  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  std::string text() const { return path("text"); }
  std::string config() const { return path("train.yaml"); }

  // trireme train CONFIG data.text=... out=<folder>/<out> more...
  std::vector<std::string> train_command(const std::string& out,
                                         const std::vector<std::string>& more = {}) const {
    std::vector<std::string> argv = {kTrireme, "train", config(), "data.text=" + text(),
                                     "out=" + path(out)};
    argv.insert(argv.end(), more.begin(), more.end());
    return argv;
  }
  ProgramResult train(const std::string& out, const std::vector<std::string>& more = {}) const {
    return run_program(train_command(out, more));
  }
  void train_or_fail(const std::string& out, const std::vector<std::string>& more = {}) const {
    const ProgramResult result = train(out, more);
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }

  // The lines of metrics.jsonl that have the key.
  std::vector<nlohmann::json> metrics(const std::string& out, const std::string& key) const {
    std::vector<nlohmann::json> records;
    std::ifstream file(path(out) + "/metrics.jsonl");
    for (std::string line; std::getline(file, line);) {
      nlohmann::json record = nlohmann::json::parse(line);
      if (record.contains(key)) records.push_back(std::move(record));
    }
    return records;
  }
  std::vector<double> losses(const std::string& out) const {
    std::vector<double> result;
    for (const auto& record : metrics(out, "loss")) result.push_back(record["loss"]);
    return result;
  }
  std::string weights(const std::string& out, int step) const {
    char name[32];
    std::snprintf(name, sizeof name, "step-%08d", step);
    return read_text(path(out) + "/checkpoints/" + name + "/model.safetensors");
  }
  nlohmann::json summary(const std::string& out) const {
    return nlohmann::json::parse(read_text(path(out) + "/summary.json"));
  }

  // Polls until the condition holds; the program runs on meanwhile.
  static void await(const std::function<bool()>& condition) {
    const Deadline deadline = Deadline::after(std::chrono::seconds(60));
    while (!condition()) {
      ASSERT_FALSE(deadline.expired()) << "the program did not get that far";
      std::this_thread::yield();
    }
  }

  TemporaryFolder folder_;
};

// The user's mistake: one line on stderr that holds each of the words, exit status 2.
inline void expect_refused(const ProgramResult& result, const std::vector<std::string>& words) {
  EXPECT_EQ(result.exit_code, 2) << result.err;
  std::size_t error_lines = 0;
  std::string error;
  std::size_t begin = 0;
  while (begin < result.err.size()) {
    const std::size_t end = std::min(result.err.find('\n', begin), result.err.size());
    const std::string line = result.err.substr(begin, end - begin);
    if (line.starts_with("trireme: error: ")) {
      ++error_lines;
      error = line;
    }
    begin = end + 1;
  }
  EXPECT_EQ(error_lines, 1U) << result.err;
  for (const std::string& word : words) EXPECT_NE(error.find(word), std::string::npos) << error;
}

}  // namespace trireme::testing
