// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Messages between two ranks over the gloo engine: what the message engine's lanes make of Gloo's
// slots.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/ranks.h"
#include "tests/support/reference_tree.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using testing::Bytes;
using testing::distinct_data;
using ::testing::HasSubstr;
using testing::run_threads;

Buffer as_bytes(Bytes& bytes) {
  return {bytes.data(), static_cast<std::int64_t>(bytes.size()), DType::kU8};
}

// Nothing, with the header, just too large for it, and large.
constexpr std::int64_t kSizes[] = {0, 1, 4096, 4097, 3000017};

Bytes message_of(int from, int tag, int number) {
  const std::int64_t size = kSizes[static_cast<std::size_t>(tag + number) % std::size(kSizes)];
  return distinct_data(from * 100 + tag * 10 + number, size, DType::kU8);
}

// Each rank has all its messages to all others under way at once; they are received in the reverse
// order of tags, while collectives run beside them.
TEST(GlooMessages, ManyAtOnceInAnyOrderOfTags) {
  constexpr int kTags = 5;
  constexpr int kNumbers = 3;
  run_threads(
      3,
      [](Group& group) {
        std::vector<Bytes> outgoing;
        std::vector<Work> works;
        outgoing.reserve(kTags * kNumbers * 2);
        for (int tag = 0; tag < kTags; ++tag) {
          for (int number = 0; number < kNumbers; ++number) {
            for (int i = 1; i < 3; ++i) {
              outgoing.push_back(message_of(group.rank(), tag, number));
              works.push_back(
                  group.start_send(as_bytes(outgoing.back()), (group.rank() + i) % 3, tag));
            }
          }
        }
        std::vector<std::int64_t> sum(20011, group.rank());
        Work reduction = group.start_all_reduce(buffer_of(std::span(sum)));
        for (int tag = kTags - 1; tag >= 0; --tag) {
          for (int number = 0; number < kNumbers; ++number) {
            for (int i = 1; i < 3; ++i) {
              const int from = (group.rank() + i) % 3;
              const Bytes expected = message_of(from, tag, number);
              Bytes incoming(expected.size());
              group.recv(as_bytes(incoming), from, tag);
              EXPECT_TRUE(incoming == expected) << from << " tag " << tag << " number " << number;
            }
          }
        }
        for (Work& work : works) work.wait();
        reduction.wait();
        EXPECT_EQ(sum.back(), 3);
      },
      "gloo");
}

// The receiver compares; the sender learns it from the announcement.
TEST(GlooMessages, ADifferenceIsSeenByBothSides) {
  for (const std::int64_t sent : {8, 100003}) {
    auto ranks = testing::start_processes(
        2,
        [sent](const WorldOptions& options) -> std::string {
          const auto group = join_world(options);
          std::vector<float> data(100007);
          if (group->rank() == 0) {
            group->send({data.data(), sent, DType::kF32}, 1, 4);
            group->barrier();
          } else {
            group->recv({data.data(), sent + 1, DType::kF32}, 0, 4);
          }
          return "no error";
        },
        "gloo");
    for (auto& rank : ranks) {
      const std::string text = rank.result();
      EXPECT_THAT(text, HasSubstr("send(" + std::to_string(sent) + " x f32 to rank 1, tag 4)"));
      EXPECT_THAT(text,
                  HasSubstr("recv(" + std::to_string(sent + 1) + " x f32 from rank 0, tag 4"));
    }
  }
}

TEST(GlooMessages, CountsThatDifferBetweenPairsAreSeenByBothSides) {
  auto ranks = testing::start_processes(
      2,
      [](const WorldOptions& options) -> std::string {
        const auto group = join_world(options);
        const bool first = group->rank() == 0;
        // Rank 1 expects 6 of the 5 that rank 0 sends it.
        const std::vector<std::int64_t> sends{4, 5};
        const std::vector<std::int64_t> receives{first ? 4 : 6, first ? 4 : 5};
        std::vector<std::int32_t> out(9);
        std::vector<std::int32_t> in(first ? 8 : 11);
        group->all_to_all(buffer_of(std::span(out)), buffer_of(std::span(in)), sends, receives);
        return "no error";
      },
      "gloo");
  for (auto& rank : ranks)
    EXPECT_THAT(rank.result(), AllOf(HasSubstr("sends 5 elements"), HasSubstr("expects 6")));
}

}  // namespace
}  // namespace trireme
