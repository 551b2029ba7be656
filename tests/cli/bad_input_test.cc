// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The mistakes that people make: one clear line on stderr, exit status 2, nothing overwritten.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/cli/fixture.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;

class BadInputTest : public CliTest {
 protected:
  // Refused with the words, and no run folder is left.
  void expect_train_refused(const std::vector<std::string>& settings,
                            const std::vector<std::string>& words) {
    expect_refused(train("refused", settings), words);
    EXPECT_FALSE(fs::exists(path("refused"))) << "a refused run leaves nothing";
  }
  std::string checkpoint() { return path("run/checkpoints/step-00000012"); }
};

TEST_F(BadInputTest, DataFolders) {
  expect_train_refused({"data.text=" + path("nowhere")}, {"data.text", path("nowhere")});
  fs::create_directories(path("empty"));
  expect_train_refused({"data.text=" + path("empty")}, {path("empty")});
  write_file(path("binary/a.bin"), std::string("\0\1\2\3", 4) + std::string(300, '\7'));
  write_file(path("binary/b.bin"), std::string(100, '\0'));
  expect_train_refused({"data.text=" + path("binary")}, {path("binary"), "binary"});
  write_file(path("short/a.txt"), "only a few words");
  write_file(path("short/b.txt"), "and some more");
  expect_train_refused({"data.text=" + path("short"), "model.context=200"}, {"200"});
}

TEST_F(BadInputTest, ConfigKeys) {
  expect_train_refused({"batch.micro_bach_size=3"}, {"micro_bach_size", "micro_batch_size"});
  expect_train_refused({"model.width=wide"}, {"model.width", "wide"});
  expect_train_refused({"train.dtype=f16"}, {"train.dtype", "f16", "bf16"});
  expect_train_refused({"modle.width=3"}, {"modle", "model"});
  write_file(config(), "model:\n  widht: 32\n");
  expect_train_refused({}, {"train.yaml:2", "widht", "width"});
  write_file(config(), "model: {width: [\n");
  expect_train_refused({}, {"train.yaml"});
}

TEST_F(BadInputTest, ConfigValues) {
  expect_train_refused({"model.heads=5"}, {"5", "24"});
  expect_train_refused({"model.family=llama", "model.heads=4", "model.kv_heads=3"},
                       {"kv_heads", "3", "4"});
  expect_train_refused({"model.layers=0"}, {"model.layers", "0"});
  expect_train_refused({"train.steps=0"}, {"train.steps", "0"});
  expect_train_refused({"optimizer.beta1=1.5"}, {"beta1", "1.5"});
  expect_train_refused({"model.vocab_size=100"}, {"vocab_size", "100"});
}

TEST_F(BadInputTest, ConfigFileItself) {
  expect_refused(run_program({kTrireme, "train", path("none.yaml")}), {path("none.yaml")});
  expect_refused(run_program({kTrireme, "train"}), {"config"});
  expect_refused(run_program({kTrireme, "trian"}), {"trian"});
  expect_refused(run_program({kTrireme}), {"subcommand"});
  expect_refused(
      run_program({kTrireme, "train", config(), "data.text=" + text(), "no_equals_sign"}),
      {"no_equals_sign"});
}

TEST_F(BadInputTest, Workers) {
  expect_train_refused({"--workers", "5"}, {"5", "4", "1, 2"});
  expect_train_refused({"--workers", "3"}, {"3", "4"});
  expect_train_refused({"--workers", "0"}, {"--workers"});
  expect_train_refused({"--workers", "2", "parallel.dp=4"}, {"parallel.dp", "4", "2"});
}

TEST_F(BadInputTest, OutputFolder) {
  write_file(path("taken/precious.txt"), "mine");
  expect_refused(train("taken"), {path("taken"), "--resume"});
  expect_refused(train("taken", {"--resume"}), {path("taken"), "config.yaml"});
  EXPECT_EQ(read_file(path("taken/precious.txt")), "mine");
  EXPECT_EQ(std::distance(fs::directory_iterator(path("taken")), fs::directory_iterator()), 1);
  write_file(path("file"), "mine");
  expect_refused(train("file"), {path("file"), "not a folder"});
  EXPECT_EQ(read_file(path("file")), "mine");
  // root may write anywhere but here
  expect_refused(run_program({kTrireme, "train", config(), "data.text=" + text(), "out=/proc/run"}),
                 {"/proc/run"});
  expect_refused(run_program({kTrireme, "train", config(), "data.text=" + text()}), {"out"});
}

TEST_F(BadInputTest, ResumeWithOtherSettings) {
  train_or_fail("run");
  const std::string before = read_file(path("run/metrics.jsonl"));
  expect_refused(train("run", {"--resume", "model.width=48"}), {"model.width", "48", "24"});
  expect_refused(train("run", {"--resume", "seed=2"}), {"seed", "'2'", "'1'"});
  EXPECT_EQ(read_file(path("run/metrics.jsonl")), before);
}

TEST_F(BadInputTest, Checkpoints) {
  train_or_fail("run");
  const auto init = [](const std::string& checkpoint) { return "train.init=" + checkpoint; };
  expect_train_refused({init(path("nothing"))}, {path("nothing")});
  expect_train_refused({init(text())}, {text()});
  expect_train_refused({init(path("run")), "model.width=48", "model.heads=3"},
                       {"width", "24", "48"});
  expect_train_refused({init(path("run")), "model.layers=3"}, {"layers", "2", "3"});

  ASSERT_EQ(run_program({kTrireme, "tokenize", text(), "--out", path("tokens"), "--vocab-size",
                         "300", "--validation-fraction", "0.1"})
                .exit_code,
            0);
  expect_train_refused({init(path("run")), "model.vocab_size=320",
                        "data.tokenizer=" + path("tokens/tokenizer.json")},
                       {"vocabulary", "tokenizer"});

  const std::string file = checkpoint() + "/model.safetensors";
  const std::string whole = read_file(file);
  write_file(file, whole.substr(0, whole.size() / 2));
  expect_train_refused({init(path("run"))}, {"model.safetensors"});
  expect_refused(train("run", {"--resume"}), {"model.safetensors"});
  expect_refused(run_program({kTrireme, "generate", path("run")}), {"model.safetensors"});
  std::string flipped = whole;
  flipped[flipped.size() - 17] ^= 0x20;
  write_file(file, flipped);
  expect_refused(run_program({kTrireme, "eval", path("run"), text()}), {"model.safetensors"});
  write_file(file, "not tensors at all");
  expect_refused(run_program({kTrireme, "generate", checkpoint()}), {"model.safetensors"});
}

TEST_F(BadInputTest, PortInUse) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  socklen_t size = sizeof address;
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::string port = std::to_string(ntohs(address.sin_port));
  const ProgramResult result = run_program(train_command("run"), std::chrono::seconds(60),
                                           {{"RANK", "0"},
                                            {"WORLD_SIZE", "2"},
                                            {"LOCAL_RANK", "0"},
                                            {"LOCAL_WORLD_SIZE", "2"},
                                            {"MASTER_ADDR", "127.0.0.1"},
                                            {"MASTER_PORT", port}});
  expect_refused(result, {port, "in use"});
  ::close(listener);
}

TEST_F(BadInputTest, EvalAndGenerate) {
  train_or_fail("run");
  expect_refused(run_program({kTrireme, "eval", path("run"), path("nowhere")}), {path("nowhere")});
  expect_refused(run_program({kTrireme, "generate", path("nowhere")}), {path("nowhere")});
  expect_refused(run_program({kTrireme, "generate", path("run"), "--top-p", "1.5"}),
                 {"top-p", "1.5"});
  expect_refused(run_program({kTrireme, "generate", path("run"), "--tokens", "many"}),
                 {"--tokens", "many"});
}

}  // namespace
}  // namespace trireme::testing
