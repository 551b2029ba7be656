// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/click_log.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/error.h"

namespace trireme::examples {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using ::testing::ThrowsMessage;
using trireme::testing::TemporaryFolder;
using trireme::testing::write_text;

// Sample i, of whose fields no two are the same.
std::string line(int i) {
  std::string text = std::to_string(i % 2);
  for (int c = 0; c < kClickNumbers; ++c) text += fmt::format("\t{}", 100 * i + c);
  for (int c = 0; c < kClickCategories; ++c)
    text += fmt::format("\t{:08x}", 0xfff00000 + 100 * i + c);
  return text;
}
std::string lines(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += line(i) + "\n";
  return text;
}
// line(0) with one field replaced.
std::string with_field(std::size_t number, std::string_view field) {
  std::string text = line(0), made;
  std::size_t at = 0;
  for (std::size_t begin = 0; begin <= text.size(); ++at) {
    const std::size_t end = std::min(text.find('\t', begin), text.size());
    if (at > 0) made += '\t';
    made += at == number ? std::string(field) : text.substr(begin, end - begin);
    begin = end + 1;
  }
  return made;
}

// Which of line()'s samples a batch has.
std::vector<int> samples(const ClickBatch& batch) {
  std::vector<int> found;
  for (std::int64_t b = 0; b < batch.labels.size(0); ++b) {
    const auto id = batch.categories[b][0].item<std::int64_t>();
    found.push_back(static_cast<int>((id - 0xfff00000) / 100));
  }
  return found;
}

class ClickLogTest : public ::testing::Test {
 protected:
  std::string file(std::string_view text) const {
    write_text(folder / "day_0", text);
    return (folder / "day_0").string();
  }
  auto throws(std::string_view where, std::string_view text) const {
    return ThrowsMessage<DataError>(
        AllOf(StartsWith((folder / "day_0").string() + std::string(where)),
              HasSubstr(std::string(text))));
  }
  TemporaryFolder folder;
};

TEST_F(ClickLogTest, EachFieldIsInItsPlace) {
  ClickLog log(file(lines(5)), {.batch = 7});
  const auto batch = log.next();
  ASSERT_TRUE(batch);
  ASSERT_EQ(batch->labels.sizes(), at::IntArrayRef({5}));
  ASSERT_EQ(batch->numbers.sizes(), at::IntArrayRef({5, kClickNumbers}));
  ASSERT_EQ(batch->categories.sizes(), at::IntArrayRef({5, kClickCategories}));
  for (std::int64_t i = 0; i < 5; ++i) {
    EXPECT_EQ(batch->labels[i].item<float>(), static_cast<float>(i % 2));
    for (std::int64_t c = 0; c < kClickNumbers; ++c) {
      EXPECT_FLOAT_EQ(batch->numbers[i][c].item<float>(),
                      std::log(static_cast<float>(1 + 100 * i + c)));
    }
    for (std::int64_t c = 0; c < kClickCategories; ++c) {
      const std::int64_t id = batch->categories[i][c].item<std::int64_t>();
      EXPECT_EQ(id >> 40, c);
      EXPECT_EQ(id & 0xffffffffff, 0xfff00000 + 100 * i + c);
    }
  }
  EXPECT_FALSE(log.next());
  EXPECT_FALSE(log.next());
}

TEST_F(ClickLogTest, WhatIsMissingIsAValueOfItsOwn) {
  const std::string text = with_field(1, "") + "\n" + with_field(1, "-2") + "\n" +
                           with_field(14, "") + "\n" + with_field(39, "") + "\n" +
                           with_field(39, "00000000") + "\n" + with_field(39, "ABCDEF01");
  const auto batch = ClickLog(file(text), {}).next();
  ASSERT_TRUE(batch);
  ASSERT_EQ(batch->labels.size(0), 6);
  EXPECT_EQ(batch->numbers[0][0].item<float>(), 0);
  EXPECT_EQ(batch->numbers[1][0].item<float>(), 0);
  EXPECT_EQ(batch->categories[2][0].item<std::int64_t>(), 0x100000000);
  EXPECT_EQ(batch->categories[3][25].item<std::int64_t>(), std::int64_t{25} << 40 | 0x100000000);
  EXPECT_EQ(batch->categories[4][25].item<std::int64_t>(), std::int64_t{25} << 40);
  EXPECT_EQ(batch->categories[5][25].item<std::int64_t>(), std::int64_t{25} << 40 | 0xabcdef01);
}

TEST_F(ClickLogTest, WorkersDealTheSamplesOut) {
  const std::string path = file(lines(23));
  std::vector<std::vector<int>> steps;  // of worker 0, then of 1, then of 2
  for (const std::int64_t worker : {0, 1, 2}) {
    ClickLog log(path, {.batch = 7, .worker = worker, .num_workers = 3});
    for (int step = 0; step < 4; ++step) {
      const auto batch = log.next();
      ASSERT_TRUE(batch) << worker;
      steps.push_back(samples(*batch));
    }
    EXPECT_FALSE(log.next()) << worker;
  }
  EXPECT_THAT(steps, ElementsAre(ElementsAre(0, 3, 6), ElementsAre(9, 12), ElementsAre(15, 18),
                                 ElementsAre(21),  //
                                 ElementsAre(1, 4), ElementsAre(7, 10, 13), ElementsAre(16, 19),
                                 ElementsAre(22),  //
                                 ElementsAre(2, 5), ElementsAre(8, 11), ElementsAre(14, 17, 20),
                                 ElementsAre()));
}

TEST_F(ClickLogTest, EpochsAreTheSame) {
  ClickLog log(file(lines(5000)), {.batch = 3001});  // more than a buffer of the file
  std::vector<std::vector<int>> epochs(2);
  for (auto& epoch : epochs) {
    while (const auto batch = log.next()) {
      for (const int sample : samples(*batch)) epoch.push_back(sample);
    }
    log.rewind();
  }
  ASSERT_EQ(epochs[0].size(), 5000);
  for (int i = 0; i < 5000; ++i) ASSERT_EQ(epochs[0][static_cast<std::size_t>(i)], i);
  EXPECT_EQ(epochs[0], epochs[1]);
}

TEST_F(ClickLogTest, BadSamplesAreNamed) {
  const auto read = [&](const std::string& bad, const ClickLogOptions& options = {}) {
    return [path = file(line(0) + "\n" + line(1) + "\n" + bad + "\n" + line(3) + "\n"), options] {
      ClickLog(path, options).next();
    };
  };
  EXPECT_THAT(read(with_field(0, "2")), throws(":3:", "the label is '2'"));
  EXPECT_THAT(read(with_field(0, "")), throws(":3:", "the label is ''"));
  EXPECT_THAT(read(with_field(3, "1.5")), throws(":3:", "number 3 is '1.5'"));
  EXPECT_THAT(read(with_field(13, "99999999999999999999")), throws(":3:", "number 13 is '9999"));
  EXPECT_THAT(read(with_field(14, "12345g78")), throws(":3:", "category 1 is '12345g78'"));
  EXPECT_THAT(read(with_field(20, "1234567")), throws(":3:", "category 7 is '1234567'"));
  EXPECT_THAT(read(line(2) + "\r"), throws(":3:", "category 26 is 'fff000e1?'"));
  EXPECT_THAT(read(line(2) + "\t"), throws(":3:", "41 fields"));
  EXPECT_THAT(read(""), throws(":3:", "1 fields"));
  EXPECT_THAT(read(std::string(1000, 'x')), throws(":3:", "'" + std::string(40, 'x') + "...'"));
  // That of another worker.
  EXPECT_NO_THROW(read("", {.worker = 1, .num_workers = 2})());
}

TEST_F(ClickLogTest, WhatCannotBeIsNamed) {
  EXPECT_THAT([&] { ClickLog((folder / "day_0").string(), {}); }, throws(": ", "No such file"));
  const std::string path = file("");
  EXPECT_FALSE(ClickLog(path, {}).next());
  EXPECT_THAT([&] { ClickLog(path, {.batch = 0}); },
              ThrowsMessage<ConfigError>(HasSubstr("batches of 0 samples")));
  EXPECT_THAT([&] { ClickLog(path, {.worker = 2, .num_workers = 2}); },
              ThrowsMessage<ConfigError>(HasSubstr("worker 2 of 2")));
}

}  // namespace
}  // namespace trireme::examples
