// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/launch_request.h"

#include <errno.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/error.h"
#include "trireme/topology/host.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TemporaryFolder;
using testing::write_text;

using Variables = std::map<std::string, std::string, std::less<>>;

EnvironmentLookup lookup_in(Variables variables) {
  return [variables = std::move(variables)](std::string_view name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  };
}

// Of a program that is there.
LaunchRequest request() {
  LaunchRequest result;
  result.command = {"/bin/sh", "-c", "exit 3"};
  return result;
}

LaunchRequest second_of_three_hosts() {
  LaunchRequest result = request();
  result.workers = "5";
  result.nodes = 3;
  result.node_rank = 1;
  result.rendezvous = "host0:29511";
  return result;
}

const Variables kSecret = {{"TRIREME_SECRET", "a secret of this test"}};

// One line with all of the words.
void expect_refused(const std::function<void()>& call, const std::vector<std::string>& words) {
  try {
    call();
    ADD_FAILURE() << "accepted; expected an error with: " << words.front();
  } catch (const ConfigError& error) {
    for (const std::string& word : words) EXPECT_THAT(error.what(), HasSubstr(word));
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
  }
}

void expect_refused(const LaunchRequest& request, const std::vector<std::string>& words,
                    const Variables& variables = kSecret) {
  expect_refused([&] { plan_launch(request, lookup_in(variables)); }, words);
}

TEST(LaunchRequest, OneHost) {
  LaunchRequest asked = request();
  asked.workers = "7";
  asked.port = 29513;
  asked.prefix = true;
  asked.log_folder = "logs";
  const LocalWorkersOptions options = plan_launch(asked, lookup_in({}));
  EXPECT_EQ(options.workers, 7);
  EXPECT_EQ(options.port, 29513);
  EXPECT_TRUE(options.prefix);
  EXPECT_EQ(options.log_folder, "logs");
  EXPECT_THAT(options.command, ElementsAre("/bin/sh", "-c", "exit 3"));
  EXPECT_FALSE(options.share);
}

TEST(LaunchRequest, OneWorkerUnlessToldOtherwise) {
  EXPECT_EQ(plan_launch(request(), lookup_in({})).workers, 1);
  EXPECT_EQ(plan_launch(request(), lookup_in({})).port, 0);
  LaunchRequest automatic = request();
  automatic.workers = "auto";
  EXPECT_EQ(plan_launch(automatic, lookup_in({})).workers, usable_cores());
}

TEST(LaunchRequest, SeveralHosts) {
  const LocalWorkersOptions options = plan_launch(second_of_three_hosts(), lookup_in(kSecret));
  EXPECT_EQ(options.workers, 5);
  EXPECT_EQ(options.port, 29511);
  ASSERT_TRUE(options.share);
  EXPECT_EQ(options.share->first_rank, 5);
  EXPECT_EQ(options.share->world_size, 15);
  EXPECT_EQ(options.share->address, "host0");
  EXPECT_EQ(options.share->secret, "a secret of this test");
}

// For scripts that always say --nodes.
TEST(LaunchRequest, AJobOfOneNodeNeedsNothingElse) {
  LaunchRequest asked = request();
  asked.nodes = 1;
  asked.node_rank = 0;
  EXPECT_FALSE(plan_launch(asked, lookup_in({})).share);
  asked.rendezvous = "host0:29511";
  const LocalWorkersOptions options = plan_launch(asked, lookup_in({}));
  EXPECT_FALSE(options.share);
  EXPECT_EQ(options.port, 29511);
}

TEST(LaunchRequest, RefusesNumbers) {
  for (const char* workers : {"0", "-1", "4097", "two", "2x", "", " 2", "2.0", "Auto"}) {
    LaunchRequest asked = request();
    asked.workers = workers;
    expect_refused(asked, {std::string("--workers ") + workers, "auto"});
  }
  for (const int nodes : {0, -3, 100001}) {
    LaunchRequest asked = second_of_three_hosts();
    asked.nodes = nodes;
    expect_refused(asked, {"--nodes " + std::to_string(nodes)});
  }
  for (const int node_rank : {-1, 3, 7}) {
    LaunchRequest asked = second_of_three_hosts();
    asked.node_rank = node_rank;
    expect_refused(asked, {"--node-rank " + std::to_string(node_rank), "--nodes 3"});
  }
}

TEST(LaunchRequest, RefusesWhatIsMissing) {
  LaunchRequest asked = request();
  asked.command.clear();
  expect_refused(asked, {"no program", "--"});
  asked = second_of_three_hosts();
  asked.node_rank.reset();
  expect_refused(asked, {"--nodes 3 needs --node-rank", "2"});
  asked = second_of_three_hosts();
  asked.rendezvous.clear();
  expect_refused(asked, {"--nodes 3 needs --rendezvous"});
}

TEST(LaunchRequest, RefusesContradictions) {
  LaunchRequest asked = request();
  asked.node_rank = 0;
  expect_refused(asked, {"--node-rank 0 needs --nodes"});
  asked = request();
  asked.rendezvous = "host0:29511";
  expect_refused(asked, {"--rendezvous host0:29511 needs --nodes", "--port"});
  asked = second_of_three_hosts();
  asked.port = 29512;
  expect_refused(asked, {"--port 29512", "--rendezvous host0:29511"});
  asked = second_of_three_hosts();
  asked.workers = "auto";
  expect_refused(asked, {"auto", "3 hosts"});
}

TEST(LaunchRequest, Servers) {
  EXPECT_FALSE(plan_launch(request(), lookup_in({})).parameter_servers);
  LaunchRequest asked = request();
  asked.servers = 0;
  EXPECT_FALSE(plan_launch(asked, lookup_in({})).parameter_servers);
  asked.servers = 3;
  asked.workers = "5";
  LocalWorkersOptions options = plan_launch(asked, lookup_in({}));
  EXPECT_EQ(options.workers, 5);
  EXPECT_FALSE(options.share);
  ASSERT_TRUE(options.parameter_servers);
  EXPECT_EQ(options.parameter_servers->servers, 3);
  EXPECT_EQ(options.parameter_servers->restarts, 0);
  for (const auto& command : {options.parameter_servers->server_command,
                              options.parameter_servers->coordinator_command}) {
    EXPECT_THAT(command, ElementsAre(program_invocation_name, "serve-parameters"));
  }
  asked.restarts = 7;
  asked.workers = "auto";
  options = plan_launch(asked, lookup_in({}));
  EXPECT_EQ(options.parameter_servers->restarts, 7);
  EXPECT_EQ(options.workers, usable_cores());
}

TEST(LaunchRequest, ServersOnSeveralHosts) {
  LaunchRequest asked = second_of_three_hosts();
  asked.servers = 2;
  const LocalWorkersOptions options = plan_launch(asked, lookup_in(kSecret));
  ASSERT_TRUE(options.share);
  EXPECT_EQ(options.share->node, 1);
  EXPECT_EQ(options.share->nodes, 3);
  ASSERT_TRUE(options.parameter_servers);
  EXPECT_EQ(options.parameter_servers->servers, 2);
}

TEST(LaunchRequest, RefusesServers) {
  LaunchRequest asked = request();
  asked.servers = 1;
  expect_refused(asked, {"--servers 1 needs --workers"});
  asked.workers = "2";
  expect_refused(asked, {"--servers 1", "TRIREME_PS_COORDINATOR=host0:7", "unset"},
                 {{"TRIREME_PS_COORDINATOR", "host0:7"},
                  {"TRIREME_PS_SERVERS", "1"},
                  {"TRIREME_PS_WORKERS", "2"}});
  asked.restarts = -1;
  expect_refused(asked, {"--restarts -1"});
  for (const int servers : {-1, 4097}) {
    asked.servers = servers;
    expect_refused(asked, {"--servers " + std::to_string(servers)});
  }
  for (const std::optional<int> servers : {std::optional<int>(), std::optional<int>(0)}) {
    asked.servers = servers;
    asked.restarts = 2;
    expect_refused(asked, {"--restarts 2 needs --servers"});
  }
}

// Servers that somebody has started, workers that we start.
TEST(LaunchRequest, LeavesTheServersOfOthersAlone) {
  LaunchRequest asked = request();
  asked.workers = "4";
  const Variables others = {{"TRIREME_PS_COORDINATOR", "host0:7"},
                            {"TRIREME_PS_SERVERS", "1"},
                            {"TRIREME_PS_WORKERS", "4"}};
  EXPECT_FALSE(plan_launch(asked, lookup_in(others)).parameter_servers);
}

TEST(LaunchRequest, RefusesALaunchInsideALaunch) {
  const Variables ours = {{"TRIREME_RANK", "1"},       {"TRIREME_WORLD_SIZE", "2"},
                          {"TRIREME_LOCAL_RANK", "1"}, {"TRIREME_LOCAL_SIZE", "2"},
                          {"TRIREME_ADDRESS", "h"},    {"TRIREME_PORT", "29511"},
                          {"TRIREME_SECRET", "s"}};
  expect_refused(request(), {"rank 1", "launch inside a launch"}, ours);
  expect_refused(second_of_three_hosts(), {"rank 1", "launch inside a launch"}, ours);
}

// The tasks of srun may each be the launcher of a host.
TEST(LaunchRequest, OthersMayStartTheLaunchersOfOneJob) {
  const Variables torchrun = {{"RANK", "1"},
                              {"WORLD_SIZE", "3"},
                              {"MASTER_ADDR", "h"},
                              {"MASTER_PORT", "29400"},
                              {"TRIREME_SECRET", "s"}};
  expect_refused(request(), {"torchrun has already started 3 ranks", "--nodes"}, torchrun);
  EXPECT_EQ(plan_launch(second_of_three_hosts(), lookup_in(torchrun)).share->first_rank, 5);
}

class FindProgram : public ::testing::Test {
 protected:
  std::string make(const std::string& name, bool executable) {
    write_text(folder_ / name, "#!/bin/sh\n");
    const auto add = executable ? fs::perms::owner_all : fs::perms::owner_read;
    fs::permissions(folder_ / name, add);
    return folder_ / name;
  }
  std::string folder(const std::string& name) { return folder_ / name; }

  TemporaryFolder folder_;
};

TEST_F(FindProgram, TheFirstExecutableOnTheSearchPath) {
  make("a/program", false);
  fs::create_directories(folder("b/program"));
  const std::string first = make("c/program", true);
  make("d/program", true);
  const std::string path = folder("a") + ":" + folder("none") + ":" + folder("b") + ":" +
                           folder("c") + ":" + folder("d");
  EXPECT_EQ(find_program("program", path), first);
  EXPECT_EQ(find_program("program", folder("d") + ":" + path), folder("d/program"));
}

TEST_F(FindProgram, AnEmptyFolderIsTheCurrentOne) {
  make("program", true);
  const fs::path before = fs::current_path();
  fs::current_path(folder_.path());
  for (const char* path : {"", ":", "/none:", ":/none", "/none::/nowhere"}) {
    EXPECT_EQ(find_program("program", path), "./program") << path;
  }
  expect_refused([] { find_program("program", "/none"); }, {"'program'", "PATH", "./program"});
  fs::current_path(before);
}

TEST_F(FindProgram, ANameWithASlashIsItself) {
  const std::string program = make("bin/program", true);
  EXPECT_EQ(find_program(program, ""), program);
  const std::string text = make("bin/text", false);
  expect_refused([&] { find_program(text, ""); }, {text, "not executable"});
  expect_refused([&] { find_program(folder("bin"), ""); }, {folder("bin"), "folder"});
  expect_refused([&] { find_program(folder("none"), ""); }, {folder("none"), "No such file"});
  expect_refused([&] { find_program(text + "/below", ""); }, {"/below", "Not a directory"});
}

TEST_F(FindProgram, RefusesWhatIsNowhere) {
  make("a/text", false);
  for (const char* name : {"text", "program", ""}) {
    expect_refused([&] { find_program(name, folder("a")); }, {std::string("'") + name + "'"});
  }
}

}  // namespace
}  // namespace trireme
