// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/event_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <stdexcept>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/error.h"
#include "trireme/train/crc32c.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Pair;
using testing::read_text;
using testing::TemporaryFolder;
using ::testing::ThrowsMessage;

// RFC 3720, appendix B.4, and the customary check value of CRC-32C.
TEST(Crc32cTest, PublishedValues) {
  std::string up(32, '\0');
  std::string down(32, '\0');
  for (int i = 0; i < 32; ++i) {
    up[static_cast<std::size_t>(i)] = static_cast<char>(i);
    down[static_cast<std::size_t>(i)] = static_cast<char>(31 - i);
  }
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(crc32c(up), 0x46DD794Eu);
  EXPECT_EQ(crc32c(down), 0x113FDB5Cu);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(""), 0u);
}

// CRC-32C bit by bit, to have a second opinion of the table.
std::uint32_t slow_masked_crc(const std::string& bytes) {
  std::uint32_t crc = 0xFFFFFFFF;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0x82F63B78u * (crc & 1));
  }
  crc = ~crc;
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

// A reader of its own: consumes from the front of bytes.
template <class Number>
Number take(std::string& bytes) {
  Number number;
  if (bytes.size() < sizeof(number)) throw std::runtime_error("the file ends early");
  std::memcpy(&number, bytes.data(), sizeof(number));
  bytes.erase(0, sizeof(number));
  return number;
}

std::string take_bytes(std::string& bytes, std::uint64_t count) {
  if (bytes.size() < count) throw std::runtime_error("the file ends early");
  std::string front = bytes.substr(0, count);
  bytes.erase(0, count);
  return front;
}

std::uint64_t take_varint(std::string& bytes) {
  std::uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = take<unsigned char>(bytes);
    value |= std::uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return value;
  }
}

struct Message {
  std::map<std::uint64_t, std::uint64_t> varints;
  std::map<std::uint64_t, double> fixed;
  std::vector<std::pair<std::uint64_t, std::string>> bytes;
};

Message parse_message(std::string bytes) {
  Message message;
  while (!bytes.empty()) {
    const std::uint64_t key = take_varint(bytes);
    switch (key & 7) {
      case 0:
        message.varints[key >> 3] = take_varint(bytes);
        break;
      case 1:
        message.fixed[key >> 3] = take<double>(bytes);
        break;
      case 2:
        message.bytes.emplace_back(key >> 3, take_bytes(bytes, take_varint(bytes)));
        break;
      case 5:
        message.fixed[key >> 3] = take<float>(bytes);
        break;
      default:
        throw std::runtime_error("unknown wire type");
    }
  }
  return message;
}

std::vector<Message> read_events(const std::string& path) {
  std::vector<Message> events;
  for (std::string bytes = read_text(path); !bytes.empty();) {
    const std::string length = bytes.substr(0, 8);
    const auto size = take<std::uint64_t>(bytes);
    EXPECT_EQ(take<std::uint32_t>(bytes), slow_masked_crc(length));
    const std::string data = take_bytes(bytes, size);
    EXPECT_EQ(take<std::uint32_t>(bytes), slow_masked_crc(data));
    events.push_back(parse_message(data));
  }
  return events;
}

std::vector<std::pair<std::string, double>> scalars(const Message& event) {
  std::vector<std::pair<std::string, double>> found;
  EXPECT_EQ(event.bytes.at(0).first, 5u);
  for (const auto& [number, bytes] : parse_message(event.bytes.at(0).second).bytes) {
    EXPECT_EQ(number, 1u);
    const Message value = parse_message(bytes);
    EXPECT_EQ(value.bytes.at(0).first, 1u);
    found.emplace_back(value.bytes.at(0).second, value.fixed.at(2));
  }
  return found;
}

TEST(EventFileTest, ReadsBack) {
  const TemporaryFolder folder;
  EventFile file(folder.path().string(), 40);
  const std::string long_name(300, 'n');
  file.append(300, {{"step", 300}, {"loss", 0.1}, {"tokens", 1'000'000}, {"dtype", "f32"}});
  file.append(std::int64_t{1} << 40, {{"alone", true}, {"rate", -2.5e-7}, {long_name, 7}});
  file.append(301, {{"note", "no number"}});

  const std::vector<Message> events = read_events(file.path());
  ASSERT_EQ(events.size(), 4u);
  EXPECT_THAT(events[0].bytes, ElementsAre(Pair(3u, "brain.Event:2")));
  EXPECT_EQ(events[1].varints.at(2), 41u);
  EXPECT_THAT(events[1].bytes, ElementsAre(Pair(7u, "\x08\x01")));
  EXPECT_EQ(events[2].varints.at(2), 300u);
  EXPECT_THAT(scalars(events[2]), ElementsAre(Pair("loss", 0.1f), Pair("tokens", 1e6)));
  EXPECT_EQ(events[3].varints.at(2), std::uint64_t{1} << 40);
  EXPECT_THAT(scalars(events[3]), ElementsAre(Pair("rate", -2.5e-7f), Pair(long_name, 7)));
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  for (const Message& event : events) {
    EXPECT_LE(event.fixed.at(1), now.count());
    EXPECT_GT(event.fixed.at(1), now.count() - 3600);
  }
}

TEST(EventFileTest, KeepsNumbersThatAreNotFinite) {
  const TemporaryFolder folder;
  EventFile file(folder.path().string());
  file.append(1, {{"nan", std::nan("")}, {"inf", std::numeric_limits<double>::infinity()}});
  const auto values = scalars(read_events(file.path()).at(2));
  EXPECT_TRUE(std::isnan(values.at(0).second));
  EXPECT_TRUE(std::isinf(values.at(1).second));
}

TEST(EventFileTest, EachRunHasAFileOfItsOwn) {
  const TemporaryFolder folder;
  const EventFile first(folder.path().string());
  const EventFile second(folder.path().string());
  EXPECT_NE(first.path(), second.path());
  EXPECT_THAT(first.path(), MatchesRegex(".*/events\\.out\\.tfevents\\.[0-9]{10}\\.[^/]+"));
  EXPECT_EQ(read_events(first.path()).size(), 2u);
  EXPECT_THAT([&] { EventFile((folder / "none").string()); },
              ThrowsMessage<ConfigError>(HasSubstr("No such file")));
}

}  // namespace
}  // namespace trireme
