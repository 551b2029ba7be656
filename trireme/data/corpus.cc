// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/corpus.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <unordered_set>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/base/random.h"
#include "trireme/data/encoder.h"
#include "trireme/data/parallel_for.h"
#include "trireme/data/prepared_folder.h"
#include "trireme/data/text_files.h"
#include "trireme/data/token_shards.h"

namespace trireme {
namespace {

using detail::TextFile;
using Progress = std::function<void(const PrepareProgress&)>;

// Files of so many bytes are in memory together, with their tokens (or one larger file for each
// thread).
constexpr std::int64_t kBatchBytes = std::int64_t{16} << 20;
// How far from the wanted place the text may be cut to hit the end of a line.
constexpr std::size_t kLineSearchBytes = 4096;

struct KeptFile {
  TextFile file;
  std::string hash;  // of the content, to notice a change before it is encoded
};

// Without a '/' at the end.
std::string absolute_path(const std::string& path) {
  const std::filesystem::path absolute =
      std::filesystem::weakly_canonical(std::filesystem::absolute(path));
  return (absolute.has_filename() ? absolute : absolute.parent_path()).string();
}

// A number for a path, the same wherever and however the text is walked.
std::uint64_t path_number(std::uint64_t seed, const char* use, const std::string& path) {
  return RandomStream(seed, use).bits(XXH3_64bits(path.data(), path.size()));
}

void check_options(const PrepareOptions& options) {
  if (options.text.empty() || options.output.empty()) {
    throw_error<ConfigError>("preparing tokens needs a text and an output folder; {} is empty",
                             options.text.empty() ? "text" : "output");
  }
  if (!(options.validation_fraction >= 0 && options.validation_fraction < 1)) {
    throw_error<ConfigError>("validation_fraction is {}: 0 (hold nothing out) or above, below 1",
                             options.validation_fraction);
  }
  if (options.threads < 1 || options.max_file_bytes < 1 || options.tokenizer_sample_bytes < 1) {
    throw_error<ConfigError>(
        "threads {}, max_file_bytes {} and tokenizer_sample_bytes {} are all to be at least 1",
        options.threads, options.max_file_bytes, options.tokenizer_sample_bytes);
  }
}

// Calls batch(begin, end) for runs of files that are worth kBatchBytes, with progress after each.
template <class Size, class Batch>
void for_each_batch(std::size_t count, const char* phase, const Progress& progress,
                    const Size& size_of, const Batch& batch) {
  std::int64_t total = 0;
  for (std::size_t i = 0; i < count; ++i) {
    total += size_of(i);
  }
  std::int64_t done = 0;
  for (std::size_t begin = 0; begin < count;) {
    std::int64_t bytes = 0;
    std::size_t end = begin;
    while (end < count && bytes < kBatchBytes) {
      bytes += size_of(end++);
    }
    batch(begin, end);
    done += bytes;
    begin = end;
    if (progress) {
      progress({phase, done, total});
    }
  }
}

// Reads every file once: what is text, and which of several same ones comes first.
std::vector<KeptFile> select_files(const detail::TextListing& listing,
                                   const PrepareOptions& options, const Progress& progress,
                                   std::map<std::string, std::int64_t>& skipped) {
  struct Verdict {
    const char* skip = nullptr;
    KeptFile kept;
  };
  const std::vector<TextFile>& files = listing.files;
  std::vector<Verdict> verdicts(files.size());
  const auto judge = [&](const TextFile& file) -> Verdict {
    const std::optional<std::string> text =
        detail::read_text_file(listing.root, file, options.max_file_bytes);
    if (!text || text->empty()) {
      return {text ? detail::kEmpty : detail::kUnreadable, {}};
    }
    if (std::memchr(text->data(), 0, text->size()) != nullptr) {
      return {detail::kBinary, {}};
    }
    const auto size = static_cast<std::int64_t>(text->size());
    return {nullptr, {{file.path, size}, detail::content_hash(*text)}};
  };
  for_each_batch(
      files.size(), "reading", progress, [&](std::size_t i) { return files[i].size; },
      [&](std::size_t begin, std::size_t end) {
        detail::parallel_for(end - begin, options.threads, [&](std::size_t i, int) {
          verdicts[begin + i] = judge(files[begin + i]);
        });
      });
  std::vector<KeptFile> kept;
  std::unordered_set<std::string> contents;
  for (Verdict& verdict : verdicts) {
    if (verdict.skip == nullptr && !contents.insert(verdict.kept.hash).second) {
      verdict.skip = detail::kDuplicate;
    }
    if (verdict.skip != nullptr) {
      ++skipped[verdict.skip];
    } else {
      kept.push_back(std::move(verdict.kept));
    }
  }
  return kept;
}

std::string read_again(const std::string& root, const KeptFile& kept) {
  std::optional<std::string> text = detail::read_text_file(root, kept.file, kept.file.size);
  if (!text || detail::content_hash(*text) != kept.hash) {
    throw_error<DataError>(
        "{}/{} changed while its folder was being prepared; try again when "
        "nothing writes there",
        root, kept.file.path);
  }
  return *std::move(text);
}

bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// The place to cut text at or before at: after a line where one ends near, else between characters.
std::size_t cut_before(std::string_view text, std::size_t at) {
  if (at == 0 || at == text.size()) {
    return at;
  }
  const std::size_t line = text.rfind('\n', at - 1);
  if (line != std::string_view::npos && at - (line + 1) < kLineSearchBytes) {
    return line + 1;
  }
  while (at > 0 && is_continuation(text[at])) {
    --at;
  }
  return at;
}

// A piece of each file, of the same share, at a place of its own, so that neither large files nor
// the notices at the top of files decide the vocabulary.
std::vector<std::string> tokenizer_sample(const std::string& root,
                                          const std::vector<KeptFile>& files,
                                          const PrepareOptions& options) {
  double bytes = 0;
  for (const KeptFile& kept : files) {
    bytes += static_cast<double>(kept.file.size);
  }
  const double share = std::min(1.0, static_cast<double>(options.tokenizer_sample_bytes) / bytes);
  std::vector<std::string> pieces(files.size());
  detail::parallel_for(files.size(), options.threads, [&](std::size_t i, int) {
    const std::string text = read_again(root, files[i]);
    const auto length =
        static_cast<std::size_t>(std::ceil(share * static_cast<double>(text.size())));
    const std::size_t places = text.size() - std::min(length, text.size()) + 1;
    const std::size_t begin =
        path_number(options.seed, "tokenizer sample", files[i].file.path) % places;
    const std::size_t first = cut_before(text, begin);
    const std::size_t last = cut_before(text, begin + length);
    pieces[i] = last > first ? text.substr(first, last - first) : text.substr(begin, length);
  });
  return pieces;
}

Tokenizer get_tokenizer(const std::string& root, const std::vector<KeptFile>& files,
                        const PrepareOptions& options, const Progress& progress) {
  const std::vector<std::string> pieces = tokenizer_sample(root, files, options);
  return train_tokenizer(std::vector<std::string_view>(pieces.begin(), pieces.end()), options.train,
                         [&](std::int64_t done, std::int64_t total) {
                           if (progress && (done % 256 == 0 || done == total)) {
                             progress({"training tokenizer", done, total});
                           }
                         });
}

// Which files are for validation: in the order of a number made from seed and path, until their
// bytes reach the fraction. A file that would overshoot it twice is passed over; if only such files
// are there, the smallest is taken.
std::vector<bool> choose_validation(const std::vector<KeptFile>& files,
                                    const PrepareOptions& options) {
  struct Candidate {
    std::uint64_t number;
    std::size_t index;
  };
  std::vector<bool> chosen(files.size(), false);
  if (files.size() < 2 || options.validation_fraction == 0) {
    return chosen;
  }
  std::vector<Candidate> candidates;
  double total = 0;
  for (std::size_t i = 0; i < files.size(); ++i) {
    candidates.push_back({path_number(options.seed, "validation split", files[i].file.path), i});
    total += static_cast<double>(files[i].file.size);
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.number != b.number ? a.number < b.number : a.index < b.index;
  });
  const double wanted = options.validation_fraction * total;
  const double most = std::min(2 * wanted, total);
  double bytes = 0;
  std::size_t num_chosen = 0;
  for (const Candidate& candidate : candidates) {
    const auto size = static_cast<double>(files[candidate.index].file.size);
    if (bytes < wanted && bytes + size <= most && num_chosen + 1 < files.size()) {
      chosen[candidate.index] = true;
      bytes += size;
      ++num_chosen;
    }
  }
  if (num_chosen == 0) {
    const auto smallest = std::min_element(
        candidates.begin(), candidates.end(), [&](const Candidate& a, const Candidate& b) {
          return files[a.index].file.size < files[b.index].file.size;
        });
    chosen[smallest->index] = true;
  }
  return chosen;
}

// Where the one file of a corpus is cut into training and validation text. Both get something if
// there are two bytes at all.
std::size_t validation_tail(std::string_view text, double fraction) {
  if (fraction == 0) {
    return text.size();
  }
  const auto tail =
      static_cast<std::size_t>(std::ceil(fraction * static_cast<double>(text.size())));
  const std::size_t cut =
      cut_before(text, text.size() - std::clamp<std::size_t>(tail, 1, text.size()));
  return cut > 0 ? cut : text.size() - text.size() / 2;
}

// Encodes all files and writes both splits, in path order whatever the number of threads.
void encode_files(const std::string& root, const std::vector<KeptFile>& files,
                  const Tokenizer& tokenizer, const PrepareOptions& options,
                  const std::string& folder, const Progress& progress, PrepareReport& report) {
  TokenShardWriter train(folder, "train", tokenizer.vocab_size(), tokenizer.hash());
  TokenShardWriter validation(folder, "validation", tokenizer.vocab_size(), tokenizer.hash());
  const std::vector<bool> for_validation = choose_validation(files, options);
  std::vector<std::unique_ptr<Encoder>> encoders(static_cast<std::size_t>(options.threads));
  const auto encode = [&](std::string_view text, int worker, std::vector<TokenId>& ids) {
    std::unique_ptr<Encoder>& encoder = encoders[static_cast<std::size_t>(worker)];
    if (encoder == nullptr) {
      encoder = std::make_unique<Encoder>(tokenizer);
    }
    if (!text.empty()) {
      encoder->encode(text, ids);
      ids.push_back(tokenizer.end_of_text());
    }
  };
  struct Encoded {
    std::vector<TokenId> train, validation;
  };
  for_each_batch(
      files.size(), "encoding", progress, [&](std::size_t i) { return files[i].file.size; },
      [&](std::size_t begin, std::size_t end) {
        std::vector<Encoded> batch(end - begin);
        detail::parallel_for(end - begin, options.threads, [&](std::size_t i, int worker) {
          const std::string text = read_again(root, files[begin + i]);
          const std::size_t cut = files.size() == 1
                                      ? validation_tail(text, options.validation_fraction)
                                  : for_validation[begin + i] ? 0
                                                              : text.size();
          encode(std::string_view(text).substr(0, cut), worker, batch[i].train);
          encode(std::string_view(text).substr(cut), worker, batch[i].validation);
        });
        for (const Encoded& encoded : batch) {
          train.append(encoded.train);
          validation.append(encoded.validation);
        }
      });
  report.train_tokens = train.finish();
  report.validation_tokens = validation.finish();
}

}  // namespace

PrepareReport prepare_tokens(const PrepareOptions& options, const Progress& progress) {
  check_options(options);
  const std::string output = absolute_path(options.output);
  const detail::TextListing listing = detail::list_text_files(
      options.text, options.max_file_bytes, {output, detail::PartialFolder::partial_name(output)});
  std::optional<Tokenizer> tokenizer;
  if (!options.tokenizer.empty()) {
    tokenizer = Tokenizer::load(options.tokenizer);
  }
  const std::string origin =
      detail::made_from(options, std::filesystem::canonical(options.text).string(), listing.hash,
                        tokenizer ? tokenizer->hash() : "");
  if (std::optional<PrepareReport> prepared = detail::find_prepared(output, origin)) {
    return *std::move(prepared);
  }

  PrepareReport report;
  report.skipped = listing.skipped;
  detail::PartialFolder partial(output);
  const std::vector<KeptFile> files = select_files(listing, options, progress, report.skipped);
  if (files.empty()) {
    throw_error<DataError>("no text file in {}; skipped: {}", options.text,
                           detail::describe_skipped(report.skipped));
  }
  if (!tokenizer) {
    tokenizer = get_tokenizer(listing.root, files, options, progress);
  }
  encode_files(listing.root, files, *tokenizer, options, partial.path(), progress, report);
  report.files = static_cast<std::int64_t>(files.size());
  for (const KeptFile& kept : files) {
    report.bytes += kept.file.size;
  }
  report.vocab_size = tokenizer->vocab_size();
  report.tokenizer_hash = tokenizer->hash();
  tokenizer->save(partial.path() + "/tokenizer.json");
  detail::write_manifest(partial.path(), origin, report);
  partial.commit();
  return report;
}

}  // namespace trireme
