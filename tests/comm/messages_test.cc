// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Messages through Group, the same on every engine: every dtype and size between all pairs, many
// under way at once, received in another order than sent.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/operations.h"
#include "tests/support/placements.h"
#include "trireme/comm/shm/shm_ring.h"

namespace trireme {
namespace {

using testing::Bytes;
using testing::distinct_data;
using testing::kDTypes;
using testing::one_host;
using testing::Placement;
using testing::run_placed;

// Nothing, inside a header's line, beyond it, gloo's eager limit and a chunk of the ring passed,
// and several rings.
constexpr std::int64_t kSizes[] = {0, 1, 23, 517, 4099, 33003, 3 * ShmRing::kBytes + 17};

struct Message {
  int tag = 0;
  DType dtype = DType::kF32;
  std::int64_t count = 0;
  int number = 0;  // among all of its pair

  std::size_t bytes() const { return static_cast<std::size_t>(count) * dtype_bytes(dtype); }
};

// What each rank sends to each: every dtype at every size, three messages per tag.
std::vector<Message> messages_of_a_pair() {
  std::vector<Message> all;
  for (const DType dtype : kDTypes) {
    for (const std::int64_t size : kSizes) {
      const int number = static_cast<int>(all.size());
      const auto element = static_cast<std::int64_t>(dtype_bytes(dtype));
      all.push_back({number / 3, dtype, (size + element - 1) / element, number});
    }
  }
  return all;
}

// The bytes of all messages: each is a piece of one buffer, from a place of its own.
class Payload {
 public:
  const std::byte* of(int from, int to, const Message& message) const {
    const auto place = static_cast<std::size_t>((from * 8 + to) * 64 + message.number);
    return bytes_.data() + place * 8;
  }

 private:
  Bytes bytes_ = distinct_data(0, std::int64_t{1} << 20, DType::kU8);
};

class MessagesTest : public ::testing::TestWithParam<Placement> {};

// Everything is under way at the same time; receives are posted from the last tag to the first.
TEST_P(MessagesTest, AllPairsAtOnce) {
  const std::vector<Message> messages = messages_of_a_pair();
  const Payload payload;
  run_placed(GetParam(), [&](Group& group) {
    const int n = group.size();
    std::vector<Work> works;
    std::vector<std::vector<Bytes>> received(static_cast<std::size_t>(n));
    for (const Message& message : messages) {
      for (int i = 0; i < n; ++i) {
        const int to = (group.rank() + i) % n;
        const ConstBuffer data(payload.of(group.rank(), to, message), message.count, message.dtype);
        works.push_back(group.start_send(data, to, message.tag));
      }
    }
    std::vector<Message> reversed = messages;
    std::stable_sort(reversed.begin(), reversed.end(),
                     [](const Message& a, const Message& b) { return a.tag > b.tag; });
    for (int from = 0; from < n; ++from) {
      std::vector<Bytes>& own = received[static_cast<std::size_t>(from)];
      for (const Message& message : reversed) own.emplace_back(message.bytes(), std::byte{0xee});
      for (std::size_t i = 0; i < reversed.size(); ++i) {
        const Message& message = reversed[i];
        works.push_back(
            group.start_recv({own[i].data(), message.count, message.dtype}, from, message.tag));
      }
    }
    for (Work& work : works) work.wait();
    for (int from = 0; from < n; ++from) {
      for (std::size_t i = 0; i < reversed.size(); ++i) {
        const Bytes& got = received[static_cast<std::size_t>(from)][i];
        ASSERT_TRUE(std::equal(got.begin(), got.end(), payload.of(from, group.rank(), reversed[i])))
            << "message " << reversed[i].number << " from " << from;
      }
    }
  });
}

// Blocking: shifts around the circle, with both ends at once.
TEST_P(MessagesTest, ExchangeWithEveryDistance) {
  const std::vector<Message> messages = messages_of_a_pair();
  const Payload payload;
  run_placed(GetParam(), [&](Group& group) {
    const int n = group.size();
    for (const Message& message : messages) {
      for (int distance = 0; distance < n; ++distance) {
        const int to = (group.rank() + distance) % n;
        const int from = (group.rank() + n - distance) % n;
        Bytes got(message.bytes(), std::byte{0xee});
        group.send_recv({payload.of(group.rank(), to, message), message.count, message.dtype}, to,
                        {got.data(), message.count, message.dtype}, from, message.tag);
        ASSERT_TRUE(std::equal(got.begin(), got.end(), payload.of(from, group.rank(), message)))
            << "message " << message.number << " from " << from;
      }
    }
  });
}

// The first three ranks: 0 sends to 1 and receives from 2 at once, and 1 comes only after 2 is done
// with its half, or the other way round.
TEST_P(MessagesTest, EitherHalfOfAnExchangeMayBeFirst) {
  constexpr std::int64_t kCount = 70001;
  if (GetParam().hosts.size() < 3) return;  // nothing to wait for in a circle
  run_placed(GetParam(), [&](Group& group) {
    const int me = group.rank();
    if (me > 2) return;
    for (const int first : {1, 2}) {
      const int second = 3 - first;
      Bytes out = distinct_data(me, kCount, DType::kF32);
      Bytes in(out.size());
      const Buffer outgoing{out.data(), kCount, DType::kF32};
      const Buffer incoming{in.data(), kCount, DType::kF32};
      float word = 0;
      const Buffer go{&word, 1, DType::kF32};
      if (me == second) group.recv(go, first, 9);
      if (me == 0) group.send_recv(outgoing, 1, incoming, 2, first);
      if (me == 1) group.recv(incoming, 0, first);
      if (me == 2) group.send(outgoing, 0, first);
      if (me == first) group.send(go, second, 9);
      if (me != 2) {
        EXPECT_TRUE(in == distinct_data(me == 0 ? 2 : 0, kCount, DType::kF32)) << "rank " << me;
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Placements, MessagesTest,
                         ::testing::Values(one_host("shm", 1), one_host("shm", 2),
                                           one_host("shm", 3), one_host("shm", 5),
                                           one_host("shm", 8), one_host("gloo", 2),
                                           one_host("gloo", 3), one_host("gloo", 5),
                                           one_host("gloo", 8), Placement{"shm+gloo", {0, 0, 1}},
                                           Placement{"shm+gloo", {0, 1, 0, 1, 1}},
                                           Placement{"shm+gloo", {0, 0, 0, 1, 2, 1, 2, 0}}),
                         [](const auto& test) { return testing::placement_name(test.param); });

}  // namespace
}  // namespace trireme
