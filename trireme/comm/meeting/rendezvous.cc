// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/meeting/rendezvous.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <bit>

#include "trireme/comm/meeting/host_identity.h"

namespace trireme {
namespace {

const std::string* find_value(const Member& member, const std::string& key) {
  for (const auto& [name, value] : member.fingerprint) {
    if (name == key) return &value;
  }
  return nullptr;
}

// What ranks must agree on whatever the caller compares. Reductions go over the wire in the bytes
// of the machine, and in the order of this version's tree. Keys read well in a message, and are
// unlikely to be a caller's.
std::vector<std::pair<std::string, std::string>> common_ground(const WorldOptions& options) {
  return {{"the version of Trireme", TRIREME_VERSION},
          {"the byte order", std::endian::native == std::endian::little ? "little" : "big"},
          {"the engine", options.engine}};
}

std::string quoted(const std::string* value) {
  return value != nullptr ? fmt::format("'{}'", *value) : "nothing";
}

}  // namespace

Meeting meet(const WorldOptions& options, FileDescriptor listener) {
  auto last_words = std::make_unique<LastWords>();
  Member self = detail::describe_self(options, *last_words);
  Meeting meeting = options.rank == 0
                        ? detail::meet_as_rank_zero(options, std::move(self), std::move(listener))
                        : detail::meet_as_member(options, std::move(self));
  meeting.last_words = std::move(last_words);
  return meeting;
}

namespace detail {

Member describe_self(const WorldOptions& options, const LastWords& last_words) {
  Member self;
  self.rank = options.rank;
  self.host_id = options.host_id.empty() ? host_identity() : options.host_id;
  self.host_name = host_name();
  self.process_space = process_space();
  self.pid = getpid();
  self.last_words = last_words.path();
  self.last_words_token = last_words.token();
  self.fingerprint = common_ground(options);
  self.fingerprint.insert(self.fingerprint.end(), options.fingerprint.begin(),
                          options.fingerprint.end());
  return self;
}

void encode_member(FieldWriter& writer, const Member& member) {
  writer.u32(static_cast<std::uint32_t>(member.rank))
      .text(member.host_id)
      .text(member.host_name)
      .text(member.ip)
      .text(member.process_space)
      .u64(static_cast<std::uint64_t>(member.pid))
      .text(member.last_words)
      .u64(member.last_words_token)
      .u32(static_cast<std::uint32_t>(member.fingerprint.size()));
  for (const auto& [key, value] : member.fingerprint) writer.text(key).text(value);
}

Member decode_member(FieldReader& reader) {
  Member member;
  member.rank = static_cast<int>(reader.u32());
  member.host_id = reader.text();
  member.host_name = reader.text();
  member.ip = reader.text();
  member.process_space = reader.text();
  member.pid = static_cast<std::int64_t>(reader.u64());
  member.last_words = reader.text();
  member.last_words_token = reader.u64();
  const std::uint32_t keys = reader.u32();
  for (std::uint32_t i = 0; i < keys; ++i) {
    std::string key = reader.text();
    member.fingerprint.emplace_back(std::move(key), reader.text());
  }
  return member;
}

std::string encode_failure(const Failure& failure) {
  return FieldWriter()
      .u8(static_cast<std::uint8_t>(failure.kind))
      .u32(static_cast<std::uint32_t>(failure.rank))
      .text(failure.message)
      .bytes();
}

Failure decode_failure(std::string_view payload) {
  FieldReader reader(payload);
  Failure failure;
  const std::uint8_t kind = reader.u8();
  if (kind > static_cast<std::uint8_t>(Failure::Kind::kConfig)) {
    throw_error<ProtocolError>("a failure of unknown kind {}", kind);
  }
  failure.kind = static_cast<Failure::Kind>(kind);
  failure.rank = static_cast<int>(reader.u32());
  failure.message = reader.text();
  reader.finish();
  return failure;
}

std::string fingerprint_difference(const Member& left, const Member& right) {
  const auto differ = [&](const std::string& key) -> std::string {
    const std::string* mine = find_value(left, key);
    const std::string* theirs = find_value(right, key);
    if (mine != nullptr && theirs != nullptr && *mine == *theirs) return {};
    return fmt::format(
        "ranks {} ({}) and {} ({}) do not agree on {}: {} and {}; start all ranks with the same "
        "one",
        left.rank, left.host_name, right.rank, right.host_name, key, quoted(mine), quoted(theirs));
  };
  for (const Member* member : {&left, &right}) {
    for (const auto& [key, value] : member->fingerprint) {
      if (std::string message = differ(key); !message.empty()) return message;
    }
  }
  return {};
}

std::string name_ranks(const std::vector<int>& ranks) {
  constexpr std::size_t kNamed = 16;
  const auto last = ranks.begin() + static_cast<std::ptrdiff_t>(std::min(kNamed, ranks.size()));
  std::string text = fmt::format("{} {}", ranks.size() == 1 ? "rank" : "ranks",
                                 fmt::join(ranks.begin(), last, ", "));
  if (ranks.size() > kNamed) text += fmt::format(" and {} more", ranks.size() - kNamed);
  return text;
}

}  // namespace detail
}  // namespace trireme
