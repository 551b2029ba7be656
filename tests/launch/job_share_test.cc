// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// run_local_workers() as one launcher of several, and what becomes of what workers print.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/launch/launcher_process.h"
#include "tests/support/files.h"
#include "tests/support/ranks.h"
#include "trireme/base/error.h"
#include "trireme/base/file_descriptor.h"
#include "trireme/launch/local_workers.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::LauncherProcess;
using testing::read_text;
using ::testing::UnorderedElementsAre;

// The second of three launchers with two workers each.
LocalWorkersOptions second_of_three() {
  LocalWorkersOptions options;
  options.port = 29517;
  options.share =
      JobShare{.first_rank = 2, .world_size = 6, .address = "host0", .secret = "of the job"};
  return options;
}

// A port that was free a moment ago.
int free_port() {
  const testing::Listener listener = testing::listen_on_free_port();
  close(listener.fd);
  return listener.port;
}

TEST(JobShare, WorkersAreRanksOfTheWholeJob) {
  LauncherProcess launcher(
      2,
      "echo $TRIREME_RANK $TRIREME_WORLD_SIZE $TRIREME_LOCAL_RANK $TRIREME_LOCAL_SIZE "
      "$TRIREME_ADDRESS $TRIREME_PORT ${TRIREME_LISTEN_FD-none} $TRIREME_SECRET >&9",
      second_of_three());
  EXPECT_THAT(launcher.lines(2), UnorderedElementsAre("2 6 0 2 host0 29517 none of the job",
                                                      "3 6 1 2 host0 29517 none of the job"));
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
}

TEST(JobShare, TorchrunsWordsSayTheSame) {
  const std::string script =
      "echo $RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT "
      "${TORCHELASTIC_USE_AGENT_STORE-none} >&9";
  {
    LauncherProcess launcher(2, script, second_of_three(),
                             [] { setenv("TORCHELASTIC_USE_AGENT_STORE", "True", 1); });
    EXPECT_THAT(launcher.lines(2),
                UnorderedElementsAre("2 6 0 2 host0 29518 none", "3 6 1 2 host0 29518 none"));
    EXPECT_EQ(launcher.wait(), 0) << launcher.log();
  }
  LocalWorkersOptions last = second_of_three();
  last.port = 65535;
  LauncherProcess launcher(1, "echo $MASTER_PORT >&9", last);
  EXPECT_THAT(launcher.lines(1), ElementsAre("65534"));
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
}

// PyTorch's rank 0 listens at MASTER_PORT, all others connect; ours meet elsewhere.
TEST(JobShare, OnOneHostTorchHasAFreePortOfItsOwn) {
  LauncherProcess launcher(2, "echo $MASTER_PORT $TRIREME_PORT >&9; read x <&8; exit 0");
  const std::vector<std::string> lines = launcher.lines(2);
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0], lines[1]);
  const int port = std::stoi(lines[0]);
  EXPECT_NE(port, std::stoi(lines[0].substr(lines[0].find(' '))));

  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  const auto listens = [&](bool reuse) {
    const FileDescriptor fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = reuse ? 1 : 0;
    setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    return bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
           listen(fd.get(), 1) == 0;
  };
  EXPECT_FALSE(listens(false)) << "a stranger gets the port";
  EXPECT_TRUE(listens(true)) << "a store does not get it";
  launcher.release();
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
}

TEST(JobShare, TheFirstLauncherListens) {
  LocalWorkersOptions options = second_of_three();
  options.port = free_port();
  options.share->first_rank = 0;
  options.share->address = "127.0.0.1";
  LauncherProcess launcher(2, "echo $TRIREME_RANK ${TRIREME_LISTEN_FD+listens} >&9", options);
  EXPECT_THAT(launcher.lines(2), UnorderedElementsAre("0 listens", "1"));
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
}

TEST(JobShare, Refused) {
  const auto expect_refused = [](const LocalWorkersOptions& options, const std::string& words) {
    try {
      run_local_workers(options);
      ADD_FAILURE() << "accepted; expected an error with: " << words;
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr(words));
    }
  };
  LocalWorkersOptions options = second_of_three();
  options.command = {"/bin/true"};
  options.workers = 5;
  expect_refused(options, "5 workers from rank 2 are not in a world of 6");
  options.workers = 2;
  options.port = 0;
  expect_refused(options, "needs a port");
  options.port = 29517;
  options.share->secret = "";
  expect_refused(options, "ranks that meet at host0:29517 need a secret");
  options.share->address = "127.0.0.1";
  EXPECT_EQ(run_local_workers(options), 0);
}

TEST(WorkersOutput, LinesHaveTheirRank) {
  LocalWorkersOptions options = second_of_three();
  options.prefix = true;
  LauncherProcess launcher(2, "echo out of $LOCAL_RANK; echo err of $LOCAL_RANK >&2; printf end",
                           options);
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
  std::vector<std::string> lines;
  std::istringstream log(launcher.log());
  for (std::string line; std::getline(log, line);) lines.push_back(line);
  EXPECT_THAT(lines, UnorderedElementsAre("[2] out of 0", "[2] err of 0", "[2] end", "[3] out of 1",
                                          "[3] err of 1", "[3] end"));
}

TEST(WorkersOutput, NothingIsLostOfMuch) {
  LocalWorkersOptions options;
  options.prefix = true;
  constexpr int kLines = 70001;
  LauncherProcess launcher(3, "yes $RANK$RANK$RANK | head -n " + std::to_string(kLines), options);
  EXPECT_EQ(launcher.wait(), 0);
  std::istringstream log(launcher.log());
  std::map<std::string, int> counts;
  for (std::string line; std::getline(log, line);) ++counts[line];
  EXPECT_THAT(counts, ElementsAre(std::pair("[0] 000", kLines), std::pair("[1] 111", kLines),
                                  std::pair("[2] 222", kLines)));
}

// A reader of what the launcher prints, which takes nothing.
class Reader {
 public:
  Reader() {
    if (mkfifo(path_.c_str(), 0600) != 0) throw std::runtime_error("no fifo");
    fd_ = FileDescriptor(open(path_.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
  }
  // In the launcher's process.
  std::function<void()> become_output() const {
    return [path = path_] { dup2(open(path.c_str(), O_WRONLY | O_CLOEXEC), STDOUT_FILENO); };
  }
  bool full() const {
    pollfd room{fd_.get(), POLLOUT, 0};
    return poll(&room, 1, 0) == 0;
  }
  void leave() { fd_ = FileDescriptor(); }

 private:
  testing::TemporaryFolder folder_;
  std::string path_ = folder_ / "output";
  FileDescriptor fd_;
};

LocalWorkersOptions with_prefix() {
  LocalWorkersOptions options;
  options.prefix = true;
  return options;
}

TEST(WorkersOutput, AStuckReaderKeepsTheLauncherFromNothing) {
  const Reader reader;
  LauncherProcess launcher(
      2, "trap 'echo INT >&9; exit 0' INT; echo ready >&9; while :; do echo $RANK; done",
      with_prefix(), reader.become_output());
  EXPECT_THAT(launcher.lines(2), ElementsAre("ready", "ready"));
  EXPECT_TRUE(testing::wait_until([&] { return reader.full(); }));
  launcher.send(SIGINT);
  EXPECT_TRUE(
      testing::wait_until([&] { return launcher.log().find("Ctrl-C") != std::string::npos; }));
  launcher.send(SIGINT);
  launcher.wait();
  launcher.rest();
}

TEST(WorkersOutput, WithoutAReaderTheWorkersAreAskedToEnd) {
  Reader reader;
  LauncherProcess launcher(
      2, "trap 'echo TERM >&9; exit 0' TERM; echo ready >&9; read x <&8; while :; do echo; done",
      with_prefix(), reader.become_output());
  EXPECT_THAT(launcher.lines(2), ElementsAre("ready", "ready"));
  reader.leave();
  launcher.release();
  EXPECT_THAT(launcher.lines(2), ElementsAre("TERM", "TERM"));
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
}

TEST(WorkersOutput, GoesToFilesAndIsAppended) {
  const testing::TemporaryFolder folder;
  LocalWorkersOptions options = second_of_three();
  options.log_folder = folder / "deep/logs";
  for (int job = 0; job < 2; ++job) {
    LauncherProcess launcher(2, "echo out $RANK; echo err $RANK >&2", options);
    EXPECT_EQ(launcher.wait(), 0);
    EXPECT_EQ(launcher.log(), "");
  }
  for (const char* rank : {"2", "3"}) {
    for (const char* stream : {"out", "err"}) {
      const std::string line = std::string(stream) + " " + rank + "\n";
      EXPECT_EQ(read_text(folder / ("deep/logs/rank-" + std::string(rank) + "." + stream)),
                line + line);
    }
  }
}

TEST(WorkersOutput, RefusesAFolderThatCannotBe) {
  LocalWorkersOptions options;
  options.command = {"/bin/true"};
  options.log_folder = "/proc/logs";
  try {
    run_local_workers(options);
    ADD_FAILURE() << "accepted";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("/proc/logs"));
  }
}

}  // namespace
}  // namespace trireme
