// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/prepared_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "trireme/base/error.h"
#include "trireme/data/token_shards.h"

namespace trireme::detail {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int kManifestVersion = 1;
constexpr const char* kManifest = "manifest.json";

// Removes what is in folder, not folder itself (which is locked).
void empty_folder(const std::string& folder) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    fs::remove_all(entry.path(), error);
  }
}

std::string differences(const Json& is, const Json& wanted) {
  std::string text;
  for (const auto& [key, value] : wanted.items()) {
    const Json old = is.is_object() && is.contains(key) ? is[key] : Json();
    if (old != value) {
      text += fmt::format("{}{} {} there, {} here", text.empty() ? "" : "; ", key, old.dump(),
                          value.dump());
    }
  }
  return text.empty() ? "its manifest has other keys" : text;
}

PrepareReport read_report(const Json& manifest) {
  PrepareReport report;
  report.files = manifest.at("files");
  report.bytes = manifest.at("bytes");
  report.train_tokens = manifest.at("train_tokens");
  report.validation_tokens = manifest.at("validation_tokens");
  report.vocab_size = manifest.at("vocab_size");
  report.tokenizer_hash = manifest.at("tokenizer_hash");
  report.skipped = manifest.at("skipped").get<std::map<std::string, std::int64_t>>();
  report.reused = true;
  return report;
}

// The shards and the tokenizer beside the manifest are those that it speaks of.
void check_content(const std::string& output, const PrepareReport& report) {
  const Tokenizer tokenizer = Tokenizer::load(output + "/tokenizer.json");
  const auto check_split = [&](const char* split, std::int64_t num_tokens) {
    const TokenShards shards(output, split);
    if (shards.num_tokens() != num_tokens || shards.tokenizer_hash() != report.tokenizer_hash ||
        tokenizer.hash() != report.tokenizer_hash) {
      throw_error<DataError>(
          "{} is damaged: its {} shards, tokenizer.json and manifest.json do not belong together; "
          "remove the folder",
          output, split);
    }
  };
  check_split("train", report.train_tokens);
  check_split("validation", report.validation_tokens);
}

}  // namespace

PartialFolder::PartialFolder(std::string output)
    : output_(std::move(output)), partial_(partial_name(output_)) {
  std::error_code error;
  fs::create_directories(partial_, error);
  if (error) {
    throw_error<DataError>("cannot create folder {}: {}", partial_, error.message());
  }
  lock_ = FileDescriptor(::open(partial_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock_) {
    throw_error<DataError>("cannot open folder {}: {}", partial_, system_reason(errno));
  }
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    committed_ = true;  // not ours to remove
    throw_error<DataError>(
        "cannot lock folder {}: {}", partial_,
        reason == EWOULDBLOCK ? "another process is preparing this output" : system_reason(reason));
  }
  empty_folder(partial_);
}

PartialFolder::~PartialFolder() {
  if (!committed_) {
    std::error_code error;
    fs::remove_all(partial_, error);
  }
}

void PartialFolder::commit() {
  sync_data_folder(partial_);
  if (::rename(partial_.c_str(), output_.c_str()) != 0) {
    throw_error<DataError>("cannot rename {} to {}: {}", partial_, output_, system_reason(errno));
  }
  committed_ = true;
  const std::string parent = fs::path(output_).parent_path().string();
  sync_data_folder(parent.empty() ? "." : parent);
}

std::string made_from(const PrepareOptions& options, const std::string& text,
                      const std::string& files_hash, const std::string& tokenizer_hash) {
  Json json = {{"text", text},
               {"files_hash", files_hash},
               {"validation_fraction", options.validation_fraction},
               {"max_file_bytes", options.max_file_bytes},
               {"seed", options.seed}};
  if (tokenizer_hash.empty()) {
    json["tokenizer"] = "trained";
    json["tokenizer_sample_bytes"] = options.tokenizer_sample_bytes;
    json["tokenizer_vocab_size"] = options.train.vocab_size;
    json["tokenizer_min_pair_count"] = options.train.min_pair_count;
  } else {
    json["tokenizer"] = tokenizer_hash;
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void write_manifest(const std::string& folder, const std::string& made_from,
                    const PrepareReport& report) {
  const Json json = {{"format", "trireme tokens"},
                     {"version", kManifestVersion},
                     {"made_from", Json::parse(made_from)},
                     {"files", report.files},
                     {"bytes", report.bytes},
                     {"train_tokens", report.train_tokens},
                     {"validation_tokens", report.validation_tokens},
                     {"vocab_size", report.vocab_size},
                     {"tokenizer_hash", report.tokenizer_hash},
                     {"skipped", report.skipped}};
  write_data_file(folder + "/" + kManifest, json.dump(2) + "\n");
}

std::optional<PrepareReport> find_prepared(const std::string& output,
                                           const std::string& made_from) {
  std::error_code error;
  if (!fs::exists(output, error)) {
    return std::nullopt;
  }
  if (!fs::is_directory(output, error)) {
    throw_error<DataError>("output {} exists and is no folder; choose another output", output);
  }
  const std::string path = output + "/" + kManifest;
  if (!fs::exists(path, error)) {
    if (fs::is_empty(output, error) && !error) {
      return std::nullopt;
    }
    throw_error<DataError>(
        "output folder {} exists and holds something else than prepared tokens; choose another "
        "output",
        output);
  }
  const Json manifest = Json::parse(read_data_file(path), nullptr, /*allow_exceptions=*/false);
  if (!manifest.is_object() || manifest.value("version", 0) != kManifestVersion) {
    throw_error<DataError>("{} is no manifest of version {}; choose another output", path,
                           kManifestVersion);
  }
  const Json wanted = Json::parse(made_from);
  const Json is = manifest.value("made_from", Json());
  if (is != wanted) {
    throw_error<DataError>(
        "output folder {} holds tokens made from something else ({}); remove it or choose another "
        "output",
        output, differences(is, wanted));
  }
  try {
    const PrepareReport report = read_report(manifest);
    check_content(output, report);
    return report;
  } catch (const Json::exception& damage) {
    throw_error<DataError>("{} is damaged: {}; remove the folder", path, damage.what());
  }
}

}  // namespace trireme::detail
