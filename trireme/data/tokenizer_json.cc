// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Tokenizer to and from Hugging Face's tokenizer.json.
//
// A byte-level file writes bytes as characters: those that print in Latin-1 stand for themselves,
// the other 68 are U+0100 and up, in order of their value (so the blank is U+0120).
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>

#include "trireme/base/error.h"
#include "trireme/data/file_io.h"
#include "trireme/data/tokenizer.h"
#include "trireme/data/tokenizer_impl.h"
#include "trireme/data/unicode_classes.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

constexpr std::uint32_t kFirstMoved = 0x100;
constexpr std::uint32_t kNumMoved = 68;

struct ByteChars {
  std::array<std::uint32_t, 256> char_of{};
  std::array<int, kFirstMoved + kNumMoved> byte_of{};  // -1: stands for no byte
};

constexpr ByteChars make_byte_chars() {
  ByteChars chars;
  for (int& byte : chars.byte_of) {
    byte = -1;
  }
  std::uint32_t moved = kFirstMoved;
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    const bool prints = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    chars.char_of[byte] = prints ? byte : moved++;
    chars.byte_of[chars.char_of[byte]] = static_cast<int>(byte);
  }
  return chars;
}
constexpr ByteChars kByteChars = make_byte_chars();

std::string to_chars(std::string_view bytes) {
  std::string chars;
  for (const char byte : bytes) {
    append_utf8(chars, kByteChars.char_of[static_cast<unsigned char>(byte)]);
  }
  return chars;
}

// Reads one file; name stands for it in messages.
class Reader {
 public:
  explicit Reader(const std::string& name) : name_(name) {}

  TokenizerParts read(std::string_view text) {
    const Json root = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
    if (root.is_discarded()) {
      refuse("is not JSON");
    }
    if (!root.is_object() || !root.contains("model") || !root["model"].is_object()) {
      refuse("is not a tokenizer.json: it has no object 'model'");
    }
    check_pipeline(root);
    check_model(root["model"]);
    read_vocabulary(root["model"], root.value("added_tokens", Json::array()));
    read_merges(root["model"]["merges"]);
    return std::move(parts_);
  }

 private:
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    throw DataError(fmt::format("{} {}", name_, fmt::format(format, std::forward<Args>(args)...)));
  }

  // The value of key, or null where there is none.
  static Json get(const Json& object, const char* key) {
    return object.is_object() && object.contains(key) ? object[key] : Json();
  }
  static std::string type_of(const Json& part) {
    const Json type = get(part, "type");
    return type.is_string() ? type.get<std::string>() : part.is_null() ? "nothing" : "an unnamed";
  }
  void check_type(const Json& root, const char* key, const char* wanted, bool may_lack) const {
    const Json part = get(root, key);
    if ((may_lack && part.is_null()) || type_of(part) == wanted) {
      return;
    }
    refuse("has {} as {}; only {}{} is supported (GPT-2's byte-level BPE)", type_of(part), key,
           wanted, may_lack ? " or none" : "");
  }

  void check_pipeline(const Json& root) const {
    for (const char* const key : {"normalizer", "truncation"}) {
      if (!get(root, key).is_null()) {
        refuse("has a {}; a byte-level tokenizer that loses nothing has none", key);
      }
    }
    check_type(root, "pre_tokenizer", "ByteLevel", false);
    check_type(root, "decoder", "ByteLevel", false);
    check_type(root, "post_processor", "ByteLevel", true);
    const Json pre_tokenizer = get(root, "pre_tokenizer");
    if (get(pre_tokenizer, "add_prefix_space") == true) {
      refuse("has pre_tokenizer.add_prefix_space true; only false keeps the text as it is");
    }
    if (get(pre_tokenizer, "use_regex") == false) {
      refuse("has pre_tokenizer.use_regex false; only GPT-2's split pattern is supported");
    }
  }

  void check_model(const Json& model) const {
    const Json type = get(model, "type");  // GPT-2's own file has none
    if (!type.is_null() && type != "BPE") {
      refuse("has a model of type {}; only BPE is supported", type.dump());
    }
    for (const char* const key : {"dropout", "unk_token", "continuing_subword_prefix",
                                  "end_of_word_suffix", "byte_fallback", "ignore_merges"}) {
      const Json value = get(model, key);
      if (!value.is_null() && value != "" && value != false && value != 0.0) {
        refuse("has model.{} {}; only none is supported", key, value.dump());
      }
    }
    if (!get(model, "vocab").is_object() || !get(model, "merges").is_array()) {
      refuse("has no model.vocab object or no model.merges array");
    }
  }

  TokenId read_id(const Json& id, const std::string& token, std::size_t num_tokens) const {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= num_tokens) {
      refuse("gives token {} the id {}; the ids of {} tokens are 0 to {}", Json(token).dump(),
             id.dump(), num_tokens, num_tokens - 1);
    }
    return id.get<TokenId>();
  }

  void read_vocabulary(const Json& model, const Json& added) {
    const Json& vocab = model["vocab"];
    std::unordered_map<std::string, Json> special;
    if (!added.is_array()) {
      refuse("has added_tokens that are no array");
    }
    std::size_t num_tokens = vocab.size();
    for (const Json& token : added) {
      const Json content = get(token, "content");
      if (!content.is_string() || get(token, "special") != true) {
        refuse(
            "has the added token {}, which is not special; text that holds it would be encoded "
            "differently",
            content.dump());
      }
      const auto text = content.get<std::string>();
      num_tokens += vocab.contains(text) || special.contains(text) ? 0 : 1;
      special[text] = get(token, "id");
    }
    std::vector<bool> taken(num_tokens, false);
    parts_.tokens.resize(num_tokens);
    const auto place = [&](const std::string& text, const Json& json_id, std::string bytes) {
      const TokenId id = read_id(json_id, text, num_tokens);
      if (taken[id]) {
        refuse("gives id {} to two tokens, one of them {}", id, Json(text).dump());
      }
      taken[id] = true;
      parts_.tokens[id] = std::move(bytes);
      return id;
    };
    for (const auto& [text, id] : special) {
      if (vocab.contains(text) && vocab[text] != id) {
        refuse("gives token {} two ids, {} and {}", Json(text).dump(), id.dump(),
               vocab[text].dump());
      }
      parts_.special.push_back(place(text, id, text));
    }
    std::sort(parts_.special.begin(), parts_.special.end());
    const auto end = special.find(std::string(kEndOfText));
    if (end == special.end()) {
      refuse("has no special token {} among its added_tokens", kEndOfText);
    }
    parts_.end_of_text = end->second.get<TokenId>();
    for (const auto& [text, id] : vocab.items()) {
      if (!special.contains(text)) {
        ids_[text] = place(text, id, to_bytes(text));
      }
    }
  }

  std::string to_bytes(std::string_view chars) const {
    std::string bytes;
    for (std::string_view rest = chars; !rest.empty();) {
      const Utf8Char next = read_utf8(rest);
      if (next.code_point >= kByteChars.byte_of.size() || kByteChars.byte_of[next.code_point] < 0) {
        refuse(
            "has the token {}, whose character U+{:04X} stands for no byte; it is not byte-level",
            Json(std::string(chars)).dump(), next.code_point);
      }
      bytes.push_back(static_cast<char>(kByteChars.byte_of[next.code_point]));
      rest.remove_prefix(next.length);
    }
    if (bytes.empty()) {
      refuse("has an empty token");
    }
    return bytes;
  }

  // "left right" or ["left", "right"].
  std::pair<std::string, std::string> read_pair(const Json& merge) const {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      return {merge[0], merge[1]};
    }
    if (merge.is_string()) {
      const auto text = merge.get<std::string>();
      const std::size_t blank = text.find(' ');
      if (blank != std::string::npos && text.find(' ', blank + 1) == std::string::npos) {
        return {text.substr(0, blank), text.substr(blank + 1)};
      }
    }
    refuse("has the merge {}, which is not a pair of tokens", merge.dump());
  }

  void read_merges(const Json& merges) {
    std::unordered_map<std::uint64_t, std::size_t> ranks;
    const auto id_of = [&](const std::string& token, const Json& merge) {
      const auto found = ids_.find(token);
      if (found == ids_.end()) {
        refuse("has the merge {}, but its vocabulary lacks {}", merge.dump(), Json(token).dump());
      }
      return found->second;
    };
    for (const Json& merge : merges) {
      const auto [left, right] = read_pair(merge);
      const Merge ids{id_of(left, merge), id_of(right, merge), id_of(left + right, merge)};
      const std::uint64_t key = (std::uint64_t{ids.left} << 32) | ids.right;
      if (!ranks.try_emplace(key, parts_.merges.size()).second) {
        refuse("has the merge {} twice", merge.dump());
      }
      parts_.merges.push_back(ids);
    }
  }

  const std::string& name_;
  TokenizerParts parts_;
  std::unordered_map<std::string, TokenId> ids_;  // by the file's text; without special tokens
};

}  // namespace

Tokenizer Tokenizer::parse(std::string_view json, const std::string& name) {
  try {
    return Tokenizer(std::make_unique<Impl>(Reader(name).read(json), name));
  } catch (const Json::exception& error) {
    throw_error<DataError>("{} is not a tokenizer.json: {}", name, error.what());
  }
}

Tokenizer Tokenizer::load(const std::string& path) {
  return parse(detail::read_data_file(path), path);
}

// Written by hand, one token a line and in order of ids, which a JSON library would sort.
std::string Tokenizer::to_json() const {
  const TokenizerParts& parts = impl_->parts;
  const auto quoted = [](const std::string& text) { return Json(text).dump(); };
  std::string added;
  for (const TokenId id : parts.special) {
    added += fmt::format(
        "{}\n    {{\"id\": {}, \"content\": {}, \"single_word\": false, \"lstrip\": false, "
        "\"rstrip\": false, \"normalized\": false, \"special\": true}}",
        added.empty() ? "" : ",", id, quoted(parts.tokens[id]));
  }
  std::string vocab;
  for (std::size_t id = 0; id < parts.tokens.size(); ++id) {
    const bool special = std::binary_search(parts.special.begin(), parts.special.end(), id);
    vocab += fmt::format("{}\n      {}: {}", vocab.empty() ? "" : ",",
                         quoted(special ? parts.tokens[id] : to_chars(parts.tokens[id])), id);
  }
  std::string merges;
  for (const Merge& merge : parts.merges) {
    merges += fmt::format("{}\n      [{}, {}]", merges.empty() ? "" : ",",
                          quoted(to_chars(parts.tokens[merge.left])),
                          quoted(to_chars(parts.tokens[merge.right])));
  }
  constexpr std::string_view kByteLevel = R"({"type": "ByteLevel", "add_prefix_space": false, )"
                                          R"("trim_offsets": true, "use_regex": true})";
  return fmt::format(R"({{
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [{}
  ],
  "normalizer": null,
  "pre_tokenizer": {},
  "post_processor": null,
  "decoder": {},
  "model": {{
    "type": "BPE",
    "dropout": null,
    "unk_token": null,
    "continuing_subword_prefix": null,
    "end_of_word_suffix": null,
    "fuse_unk": false,
    "byte_fallback": false,
    "ignore_merges": false,
    "vocab": {{{}
    }},
    "merges": [{}
    ]
  }}
}}
)",
                     added, kByteLevel, kByteLevel, vocab, merges);
}

void Tokenizer::save(const std::string& path) const { detail::write_data_file(path, to_json()); }

}  // namespace trireme
