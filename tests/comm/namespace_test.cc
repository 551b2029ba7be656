// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Worlds across "hosts" that are network namespaces, and hosts that vanish.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "tests/support/network_namespaces.h"
#include "tests/support/ranks.h"
#include "trireme/base/error.h"
#include "trireme/comm/group.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using testing::NetworkNamespaces;
using testing::RankProcess;
using ::testing::StartsWith;

// Two hosts with two ranks each: ranks 0 and 1 on host 0, 2 and 3 on host 1.
class TwoHosts : public ::testing::TestWithParam<std::string> {
 protected:
  using Body = std::function<std::string(const WorldOptions&)>;

  void SetUp() override {
    if (!net_.unavailable().empty()) GTEST_SKIP() << net_.unavailable();
  }

  static int host_of(int rank) { return rank / 2; }

  std::vector<RankProcess> start(const Body& body, std::chrono::milliseconds timeout) {
    std::vector<RankProcess> ranks;
    ranks.reserve(4);
    for (int rank = 0; rank < 4; ++rank) {
      WorldOptions options;
      options.rank = rank;
      options.size = 4;
      options.address = net_.address(0);
      options.engine = GetParam();
      options.secret = "a secret of this test";
      options.join_timeout = testing::kTestDeadline;
      options.timeout = timeout;
      ranks.emplace_back(rank, [&, rank, options] {
        net_.enter(host_of(rank));
        return body(options);
      });
    }
    return ranks;
  }

  NetworkNamespaces net_{2};
};

// Distinct for every rank and index, and exact in f32 up to the sum of four.
float element(int rank, std::size_t i) {
  return static_cast<float>((i * 31 + static_cast<std::size_t>(rank) * 977) % 100003);
}

std::vector<float> distinct(int rank, std::size_t count) {
  std::vector<float> data(count);
  for (std::size_t i = 0; i < count; ++i) data[i] = element(rank, i);
  return data;
}

std::string wrong(const char* what, std::size_t i) {
  return std::string(what) + " is wrong at " + std::to_string(i);
}

TEST_P(TwoHosts, Compute) {
  constexpr std::size_t kCount = 100019;
  auto ranks = start(
      [](const WorldOptions& options) -> std::string {
        const auto world = join_world(options);
        std::vector<float> sum = distinct(options.rank, kCount);
        world->all_reduce(buffer_of(std::span(sum)));
        std::vector<float> root = distinct(options.rank, kCount);
        world->broadcast(buffer_of(std::span(root)), 2);
        std::vector<float> own = distinct(options.rank, kCount);
        std::vector<float> all(4 * kCount);
        world->all_gather(buffer_of(std::span(own)), buffer_of(std::span(all)));
        world->barrier();
        for (std::size_t i = 0; i < kCount; ++i) {
          const float expected = element(0, i) + element(1, i) + element(2, i) + element(3, i);
          if (sum[i] != expected) return wrong("the sum", i);
          if (root[i] != element(2, i)) return wrong("the root's data", i);
          for (int rank = 0; rank < 4; ++rank) {
            const std::size_t at = static_cast<std::size_t>(rank) * kCount + i;
            if (all[at] != element(rank, i)) return wrong("what was gathered", at);
          }
        }
        const auto here = world->split(
            "here", options.rank < 2 ? std::vector<int>{0, 1} : std::vector<int>{2, 3});
        here->barrier();
        const std::string engines =
            std::string(world->engine()) + " " + std::string(here->engine());
        world->close();
        return engines;
      },
      testing::kTestDeadline);
  for (RankProcess& rank : ranks) {
    EXPECT_EQ(rank.result(), GetParam() == "gloo" ? "gloo gloo" : "shm+gloo shm");
  }
}

// Long against any scheduling: 64 MiB over a link of 100 Mbit/s take more than 5 s.
std::string reduce_for_long(const WorldOptions& options) {
  const auto world = join_world(options);
  std::vector<float> data(std::size_t{16} << 20, 1.0F);
  world->barrier();
  RankProcess::say("running");
  for (;;) world->all_reduce(buffer_of(std::span(data)));
}

// Nobody's connection ends: there is only silence. The contract is five seconds.
TEST_P(TwoHosts, ACutLinkIsALostPeerWithinFiveSeconds) {
  const std::string unpaced = net_.pace(1, 100'000'000);
  if (!unpaced.empty()) std::printf("the link is not paced: %s\n", unpaced.c_str());
  auto ranks = start(reduce_for_long, std::chrono::minutes(5));
  for (RankProcess& rank : ranks) ASSERT_TRUE(rank.wait_to_hear("running"));
  const Deadline deadline = Deadline::after(testing::kLossTime);
  net_.cut(1);
  for (int rank = 0; rank < 4; ++rank) {
    const auto lost = [&](int other) {
      const std::string number = std::to_string(other);
      return AllOf(StartsWith("PeerLostError " + number + ": "),
                   HasSubstr("rank " + number + " on " + net_.name(host_of(other))));
    };
    const int first = 2 * (1 - host_of(rank));
    EXPECT_THAT(ranks[static_cast<std::size_t>(rank)].result(deadline),
                AnyOf(lost(first), lost(first + 1)))
        << "rank " << rank;
  }
}

// A whole host of stopped processes answers through its kernel: it is late, not lost.
TEST_P(TwoHosts, AStoppedHostIsLateNotLost) {
  auto ranks = start(
      [](WorldOptions options) -> std::string {
        const auto world = join_world(options);
        world->barrier();
        // Longer than it takes to notice a silent host.
        world->set_timeout(std::chrono::milliseconds(6500));
        RankProcess::say("running");
        std::vector<float> data(100003, 1.0F);
        for (;;) world->all_reduce(buffer_of(std::span(data)));
      },
      testing::kTestDeadline);
  for (RankProcess& rank : ranks) ASSERT_TRUE(rank.wait_to_hear("running"));
  for (const int rank : {2, 3}) ranks[static_cast<std::size_t>(rank)].signal(SIGSTOP);
  for (const int rank : {0, 1}) {
    EXPECT_THAT(ranks[static_cast<std::size_t>(rank)].result(),
                AllOf(StartsWith("TimeoutError: "), HasSubstr("did not arrive at operation"),
                      AnyOf(HasSubstr("rank 2 on host1"), HasSubstr("rank 3 on host1"),
                            HasSubstr("2, 3"))));
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, TwoHosts, ::testing::Values("auto", "gloo"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace trireme
