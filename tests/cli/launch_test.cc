// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// trireme launch with real programs, on one host and on two.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "tests/cli/fixture.h"
#include "tests/support/network_namespaces.h"
#include "tests/support/ranks.h"

namespace trireme::testing {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

const std::string kHello = TRIREME_BINARY_DIR "/examples/01_hello_group";
const Program::Environment kSecret = {{"TRIREME_SECRET", "a secret of this test"}};
const Program::Environment kNoSecret = {{"TRIREME_SECRET", ""}};
constexpr seconds kPatience{60};

// trireme launch options... -- program...
std::vector<std::string> launch(const std::vector<std::string>& options,
                                const std::vector<std::string>& program) {
  std::vector<std::string> argv = {kTrireme, "launch"};
  argv.insert(argv.end(), options.begin(), options.end());
  argv.emplace_back("--");
  argv.insert(argv.end(), program.begin(), program.end());
  return argv;
}

// Launcher number node of two that meet there.
std::vector<std::string> one_of_two(int node, int workers, const std::string& rendezvous,
                                    const std::vector<std::string>& program) {
  return launch({"-n", std::to_string(workers), "--nodes", "2", "--node-rank", std::to_string(node),
                 "--rendezvous", rendezvous},
                program);
}

// A port that was free a moment ago.
std::string free_port() {
  const Listener listener = listen_on_free_port();
  ::close(listener.fd);
  return std::to_string(listener.port);
}

TEST(LaunchTest, RanksMeetAndSum) {
  for (const auto& [workers, text] :
       {std::pair("3", "3 ranks, sum 6\n"), std::pair("1", "1 ranks, sum 1\n")}) {
    const ProgramResult result = run_program(launch({"-n", workers}, {kHello}));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.out, text);
  }
  EXPECT_EQ(run_program(launch({}, {kHello})).out, "1 ranks, sum 1\n");
}

TEST(LaunchTest, AProgramOfTheSearchPathWithItsOwnArguments) {
  const ProgramResult result = run_program(
      launch({"--workers", "2", "--prefix"}, {"printf", "%s,", "-n", "--", "--prefix", "a b"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("[0] -n,--,--prefix,a b,\n"));
  EXPECT_THAT(result.out, HasSubstr("[1] -n,--,--prefix,a b,\n"));
}

TEST(LaunchTest, LogFolder) {
  const TemporaryFolder folder;
  const ProgramResult result =
      run_program(launch({"-n", "3", "--log-dir", folder / "logs"}, {kHello}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(read_text(folder / "logs/rank-0.out"), "3 ranks, sum 6\n");
  EXPECT_EQ(read_text(folder / "logs/rank-2.out"), "");
  EXPECT_THAT(read_text(folder / "logs/rank-0.err"), HasSubstr("3 ranks have met"));
}

TEST(LaunchTest, WhatCannotBeIsRefusedInOneLine) {
  const auto refused = [](const std::vector<std::string>& options,
                          const std::vector<std::string>& words) {
    expect_refused(run_program(launch(options, {kHello}), kPatience, kNoSecret), words);
  };
  refused({"-n", "0"}, {"--workers 0", "auto"});
  refused({"-n", "two"}, {"--workers two"});
  refused({"-n"}, {"--workers"});
  refused({"--wokers", "2"}, {"'--wokers'", "'--workers'"});
  refused({"-n", "2", kHello}, {kHello, "put -- before the program"});
  refused({"--port", "0"}, {"--port"});
  refused({"--nodes", "2"}, {"--node-rank"});
  refused({"--nodes", "two", "--node-rank", "0"}, {"--nodes", "two"});
  refused({"--nodes", "2", "--node-rank", "2", "--rendezvous", "h:29500"}, {"--node-rank 2"});
  refused({"--nodes", "2", "--node-rank", "1", "--rendezvous", "h"}, {"--rendezvous h"});
  refused({"--nodes", "2", "--node-rank", "1", "--rendezvous", "h:29500"},
          {"h:29500", "TRIREME_SECRET", "openssl rand -hex 32"});
  refused({"--prefix", "--log-dir", "logs"}, {"prefix", "logs"});
  refused({"--servers", "1"}, {"--servers 1 needs --workers"});
  refused({"--servers", "-1", "-n", "2"}, {"--servers -1"});
  refused({"--servers", "one", "-n", "2"}, {"--servers", "one"});
  refused({"--restarts", "1", "-n", "2"}, {"--restarts 1 needs --servers"});
  refused({"--servers", "1", "-n", "2", "--restarts", "-1"}, {"--restarts -1"});
  expect_refused(run_program({kTrireme, "launch", "-n", "2"}), {"no program", "--"});
  expect_refused(run_program({kTrireme, "launch", "--", ""}), {"''"});
}

TEST(LaunchTest, ProgramsThatCannotBeExecuted) {
  const auto refused = [](const std::string& program, const std::vector<std::string>& words) {
    expect_refused(run_program(launch({"-n", "3"}, {program})), words);
  };
  const TemporaryFolder folder;
  refused("no-such-program-anywhere", {"no-such-program-anywhere", "PATH"});
  refused(folder / "none", {folder / "none", "No such file"});
  refused(folder.path().string(), {folder.path().string(), "folder"});
  write_text(folder / "text", "no script");
  refused(folder / "text", {folder / "text", "not executable"});
  std::filesystem::permissions(folder / "text", std::filesystem::perms::owner_all);
  refused(folder / "text", {folder / "text", "Exec format error"});
}

TEST(LaunchTest, ALaunchInsideALaunchIsRefused) {
  const ProgramResult result = run_program(launch({"-n", "1"}, launch({"-n", "2"}, {kHello})));
  expect_refused(result, {"rank 0", "launch inside a launch"});
  EXPECT_EQ(result.out, "");
}

TEST(LaunchTest, ThePortIsTheGivenOne) {
  const std::string port = free_port();
  const ProgramResult result =
      run_program(launch({"--port", port}, {"sh", "-c", "echo $TRIREME_PORT"}));
  EXPECT_EQ(result.out, port + "\n") << result.err;
  const Listener taken = listen_on_free_port();
  expect_refused(run_program(launch({"--port", std::to_string(taken.port)}, {kHello})),
                 {std::to_string(taken.port), "in use"});
  ::close(taken.fd);
}

TEST(LaunchTest, TwoLaunchersOnLoopback) {
  for (const Program::Environment& secret : {kSecret, kNoSecret}) {
    const std::string rendezvous = "127.0.0.1:" + free_port();
    // Whoever comes first: ranks wait for rank 0's host.
    Program second(one_of_two(1, 2, rendezvous, {kHello}), secret);
    const ProgramResult first =
        run_program(one_of_two(0, 2, rendezvous, {kHello}), kPatience, secret);
    EXPECT_EQ(first.out, "4 ranks, sum 10\n") << first.err;
    EXPECT_EQ(first.exit_code, 0);
    const ProgramResult other = second.wait(kPatience);
    EXPECT_EQ(other.exit_code, 0) << other.err;
    EXPECT_EQ(other.out, "");
  }
}

TEST(LaunchTest, LaunchersWithOtherSecretsDoNotMeet) {
  const std::string rendezvous = "127.0.0.1:" + free_port();
  Program second(one_of_two(1, 1, rendezvous, {kHello}), {{"TRIREME_SECRET", "another secret"}});
  Program first(one_of_two(0, 1, rendezvous, {kHello}), kSecret);
  const ProgramResult refused = second.wait(kPatience);
  EXPECT_EQ(refused.exit_code, 1) << "of a program that lets the error end it";
  EXPECT_THAT(refused.err, HasSubstr("secret"));
}

// The exit status of the launcher of this node and what it said.
std::string launched_on(const NetworkNamespaces& net, int node,
                        const std::vector<std::string>& program) {
  net.enter(node);
  const ProgramResult result =
      run_program(one_of_two(node, 2, net.address(0) + ":29517", program), kPatience, kSecret);
  return std::to_string(result.exit_code) + " " + result.out + result.err;
}

TEST(LaunchTest, TwoHosts) {
  const NetworkNamespaces net(2);
  if (!net.unavailable().empty()) GTEST_SKIP() << net.unavailable();
  RankProcess first(0, [&] { return launched_on(net, 0, {kHello}); });
  RankProcess second(1, [&] { return launched_on(net, 1, {kHello}); });
  const std::string said = first.result();
  EXPECT_THAT(said, HasSubstr("0 4 ranks, sum 10\n"));
  EXPECT_THAT(said, HasSubstr("ranks 0, 1 on host0 by shm, ranks 2, 3 on host1 by shm, between "
                              "hosts by gloo"));
  EXPECT_EQ(second.result(), "0 ");
}

}  // namespace
}  // namespace trireme::testing
