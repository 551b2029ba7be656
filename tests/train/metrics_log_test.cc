// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/metrics_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;
using testing::read_text;
using ::testing::ThrowsMessage;
using testing::write_text;

class MetricsLogTest : public ::testing::Test {
 protected:
  testing::TemporaryFolder folder_{testing::memory_folder()};
  const std::string path_ = (folder_ / "metrics.jsonl").string();
};

TEST_F(MetricsLogTest, EachLineIsThereAtOnce) {
  MetricsLog log(path_);
  EXPECT_EQ(read_text(path_), "");
  log.append({{"step", 1}, {"loss", 2.5}});
  EXPECT_EQ(read_text(path_), "{\"step\": 1, \"loss\": 2.5}\n");
  log.append({{"step", 2}, {"loss", std::nan("")}});
  EXPECT_EQ(read_text(path_), "{\"step\": 1, \"loss\": 2.5}\n{\"step\": 2, \"loss\": null}\n");
}

TEST_F(MetricsLogTest, ContinuesAfterTheLastWholeLine) {
  const std::string whole = "{\"step\": 1}\n";
  const std::string second = "{\"step\": 2, \"note\": \"" + std::string(9000, 'x') + "\"}\n";
  for (std::size_t torn = 0; torn <= second.size(); torn += 101) {
    write_text(path_, whole + second.substr(0, torn));
    MetricsLog(path_).append({{"step", 7}});
    EXPECT_EQ(read_text(path_), whole + "{\"step\": 7}\n") << torn;
  }
  write_text(path_, whole + second);
  MetricsLog(path_).append({{"step", 7}});
  EXPECT_EQ(read_text(path_), whole + second + "{\"step\": 7}\n");
  write_text(path_, "{\"st");
  MetricsLog(path_).append({{"step", 7}});
  EXPECT_EQ(read_text(path_), "{\"step\": 7}\n");
}

TEST_F(MetricsLogTest, DropsWhatTheResumedRunRepeats) {
  const std::string before = "{\"run\": \"a\"}\n{\"step\": 1}\n{\"step\": 5, \"loss\": 1}\n";
  write_text(path_, before + "{\"step\": 6}\n{\"note\": 1}\n{\"step\": 5.5}\n{\"step\": 4}\n{\"st");
  MetricsLog log(path_);
  EXPECT_EQ(log.truncate_after(5), 2);
  EXPECT_EQ(read_text(path_), before + "{\"note\": 1}\n{\"step\": 4}\n");
  log.append({{"step", 6}});
  EXPECT_EQ(read_text(path_), before + "{\"note\": 1}\n{\"step\": 4}\n{\"step\": 6}\n");
  EXPECT_EQ(log.truncate_after(6), 0);
  EXPECT_EQ(log.truncate_after(-1), 4);
  EXPECT_EQ(read_text(path_), "{\"run\": \"a\"}\n{\"note\": 1}\n");
}

TEST_F(MetricsLogTest, DropsDamagedLines) {
  const std::string zeros(3, '\0');
  write_text(path_, "{\"step\": 1}\n" + zeros + "\n\n[1]\n{\"step\": 2}\n");
  MetricsLog log(path_);
  EXPECT_EQ(log.truncate_after(9), 3);
  EXPECT_EQ(read_text(path_), "{\"step\": 1}\n{\"step\": 2}\n");
}

TEST_F(MetricsLogTest, AFailedWriteLeavesWholeLines) {
  MetricsLog log(path_);
  log.append({{"step", 1}});
  const std::string before = read_text(path_);
  rlimit limit = {};
  ::getrlimit(RLIMIT_FSIZE, &limit);
  auto* const handler = std::signal(SIGXFSZ, SIG_IGN);
  for (rlim_t room = 0; room < 12; ++room) {
    const rlimit lowered = {before.size() + room, limit.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &lowered);
    std::string message;
    try {
      log.append({{"step", 2}});
    } catch (const ConfigError& error) {
      message = error.what();
    }
    ::setrlimit(RLIMIT_FSIZE, &limit);
    EXPECT_THAT(message, HasSubstr("File too large"));
    EXPECT_EQ(read_text(path_), before) << room;
  }
  std::signal(SIGXFSZ, handler);
  log.append({{"step", 3}});
  EXPECT_EQ(read_text(path_), before + "{\"step\": 3}\n");
}

TEST_F(MetricsLogTest, SaysWhatItCannotOpen) {
  EXPECT_THAT([&] { MetricsLog((folder_ / "none/metrics.jsonl").string()); },
              ThrowsMessage<ConfigError>(HasSubstr("No such file")));
  EXPECT_THAT([&] { MetricsLog("/dev/null"); }, ThrowsMessage<ConfigError>(HasSubstr("regular")));
}

}  // namespace
}  // namespace trireme
