// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/checkpoint/checkpoint_manifest.h"

#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/checkpoint/file_io.h"

namespace trireme::checkpoint_detail {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::string_view kFormat = "trireme-checkpoint";
constexpr std::int64_t kVersion = 1;
// Version 1 needs 3. A little more, so that a newer version is refused as such.
constexpr std::size_t kMaxDepth = 8;

// The manifest ends with its own digest, in exactly these bytes; the digest covers all bytes before
// them, so that no byte of the file is outside it.
constexpr std::string_view kSealBegin = ",\n  \"xxh3\": \"";
constexpr std::string_view kSealEnd = "\"\n}\n";

std::string seal(std::string_view body) {
  return fmt::format("{}{}{}", kSealBegin, digest_of(as_bytes(body)), kSealEnd);
}

// Follows the JSON parser's events before a document is built from the same text: ends at deep
// nesting, and sees keys that come twice, of which a document would silently keep one.
class JsonGuard final : public nlohmann::json_sax<json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return enter(); }
  bool key(string_t& value) override { return keys_.back().insert(value).second; }
  bool end_object() override { return leave(); }
  bool start_array(std::size_t) override { return enter(); }
  bool end_array() override { return leave(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

 private:
  bool enter() {
    keys_.emplace_back();
    return keys_.size() <= kMaxDepth;
  }
  bool leave() {
    keys_.pop_back();
    return true;
  }

  std::vector<std::set<std::string>> keys_;
};

CheckpointFile parse_file(const json& entry) {
  return {entry.at("name").get<std::string>(), entry.at("size").get<std::uint64_t>(),
          entry.at("xxh3").get<std::string>()};
}

void check_format(const json& document, const std::string& path) {
  if (!document.is_object() || document.value("format", "") != kFormat) {
    throw_error<CheckpointError>("'{}' is not a Trireme checkpoint: its format is not '{}'", path,
                                 kFormat);
  }
  const auto version = document.at("version").get<std::int64_t>();
  if (version != kVersion) {
    throw_error<CheckpointError>(
        "'{}' has format version {}, this Trireme reads version {}; use {} Trireme", path, version,
        kVersion, version > kVersion ? "a newer" : "an older");
  }
}

void check_seal(std::string_view text, const std::string& path) {
  constexpr std::size_t kSealBytes = kSealBegin.size() + 16 + kSealEnd.size();
  if (text.size() < kSealBytes ||
      text.substr(text.size() - kSealBytes) != seal(text.substr(0, text.size() - kSealBytes))) {
    throw_error<CheckpointError>(
        "'{}' is damaged or was edited: its bytes do not match the digest at its end", path);
  }
}

}  // namespace

bool is_plain_file_name(std::string_view name) {
  constexpr std::size_t kMaxNameBytes = 255;  // what Linux's file systems hold
  return !name.empty() && name.size() <= kMaxNameBytes && name != "." && name != ".." &&
         name != kManifestName && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

std::string render_manifest(const Manifest& manifest) {
  ordered_json document = {{"format", kFormat}, {"version", kVersion}, {"step", manifest.step}};
  document["state"] = manifest.state;
  document["files"] = ordered_json::array();
  for (const CheckpointFile& file : manifest.files) {
    document["files"].push_back(
        {{"name", file.name}, {"size", file.size_bytes}, {"xxh3", file.digest}});
  }
  std::string text;
  try {
    text = document.dump(2);
  } catch (const json::exception&) {
    throw_error<ConfigError>("a checkpoint's state or a file's name is not UTF-8 text");
  }
  text.resize(text.size() - std::string_view("\n}").size());
  text += seal(text);
  if (text.size() > kMaxManifestBytes) {
    throw_error<ConfigError>("a checkpoint's state would make {} of {} bytes, at most {} are read",
                             kManifestName, text.size(), kMaxManifestBytes);
  }
  return text;
}

Manifest parse_manifest(std::string_view text, const std::string& path) {
  JsonGuard guard;
  // The parser would take a NUL for the end of the text.
  if (text.find('\0') != std::string_view::npos ||
      !json::sax_parse(text.begin(), text.end(), &guard)) {
    throw_error<CheckpointError>("'{}' is truncated or damaged: it is not valid JSON", path);
  }
  Manifest manifest;
  try {
    const json document = json::parse(text.begin(), text.end());
    check_format(document, path);
    check_seal(text, path);
    manifest.step = document.at("step").get<std::int64_t>();
    manifest.state = document.at("state").get<CheckpointState>();
    for (const json& entry : document.at("files")) {
      manifest.files.push_back(parse_file(entry));
    }
  } catch (const json::exception&) {
    throw_error<CheckpointError>(
        "'{}' is not a Trireme checkpoint: an entry is missing or of the wrong type", path);
  }
  std::set<std::string_view> names;
  for (const CheckpointFile& file : manifest.files) {
    if (!is_plain_file_name(file.name) || !names.insert(file.name).second) {
      throw_error<CheckpointError>("'{}' lists '{}', which is no plain file name or comes twice",
                                   path, printable(file.name));
    }
  }
  return manifest;
}

}  // namespace trireme::checkpoint_detail
