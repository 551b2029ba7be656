// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace trireme {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// What the call wrote to stderr, by lines; the logger is as at the start of a program, and after.
class Log : public ::testing::Test {
 protected:
  void SetUp() override { reset(); }
  void TearDown() override { reset(); }

  template <class Call>
  static std::vector<std::string> lines_of(Call call) {
    ::testing::internal::CaptureStderr();
    call();
    std::istringstream text(::testing::internal::GetCapturedStderr());
    std::vector<std::string> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
  }

 private:
  static void reset() {
    set_log_level(LogLevel::kInfo);
    set_log_rank(0, 1);
  }
};

bool matches(const std::string& line, const std::string& pattern) {
  return std::regex_match(line, std::regex(pattern));
}

constexpr const char* kTime = R"(\d\d:\d\d:\d\d\.\d\d\d )";

TEST_F(Log, LinesHaveTimeLevelAndMessage) {
  const auto lines = lines_of([] {
    log_info("step {} of {}", 3, 7);
    log_warn("{}% {{}} %v %l", 50);
    log_error("x");
  });
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_TRUE(matches(lines[0], std::string(kTime) + "info step 3 of 7")) << lines[0];
  EXPECT_TRUE(matches(lines[1], std::string(kTime) + R"(warning 50% \{\} %v %l)")) << lines[1];
  EXPECT_TRUE(matches(lines[2], std::string(kTime) + "error x")) << lines[2];
}

TEST_F(Log, RankIsAddedAboveAWorldOfOne) {
  const auto lines = lines_of([] {
    set_log_rank(2, 4);
    log_info("hello");
    set_log_rank(0, 1);
    log_info("hello");
  });
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_TRUE(matches(lines[0], std::string(kTime) + R"(info \[2/4\] hello)")) << lines[0];
  EXPECT_THAT(lines[1], Not(HasSubstr("[")));
}

TEST_F(Log, LinesBelowTheLevelAreDropped) {
  const auto count = [](LogLevel level) {
    return lines_of([&] {
             set_log_level(level);
             log_debug("d");
             log_info("i");
             log_warn("w");
             log_error("e");
           })
        .size();
  };
  EXPECT_EQ(count(LogLevel::kDebug), 4u);
  EXPECT_EQ(count(LogLevel::kInfo), 3u);
  EXPECT_EQ(count(LogLevel::kWarn), 2u);
  EXPECT_EQ(count(LogLevel::kError), 1u);
  EXPECT_EQ(count(LogLevel::kOff), 0u);
}

TEST_F(Log, LinesOfManyThreadsAreNeverMixed) {
  constexpr int kThreads = 5;
  constexpr int kLines = 200;
  const auto lines = lines_of([] {
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([t] {
        for (int i = 0; i < kLines; ++i)
          log_info("thread {} line {} {}", t, i, std::string(100, 'x'));
      });
    }
    for (std::thread& thread : threads) thread.join();
  });
  EXPECT_EQ(lines.size(), static_cast<std::size_t>(kThreads * kLines));
  const std::regex whole(std::string(kTime) + R"(info (thread \d line \d+) x{100})");
  std::set<std::string> distinct;
  for (const std::string& line : lines) {
    std::smatch parts;
    ASSERT_TRUE(std::regex_match(line, parts, whole)) << line;
    distinct.insert(parts[1]);
  }
  EXPECT_EQ(distinct.size(), lines.size());
}

}  // namespace
}  // namespace trireme
