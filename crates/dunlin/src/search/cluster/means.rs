//! A given number of groups around their means.

use dunlin_engine::Random;

use super::{check, squared_distance};
use crate::search::SearchError;

/// How groups are looked for. Every field but the number of groups has a default; the builder methods set one each.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct KMeansOptions {
    /// Number of groups.
    pub clusters: usize,
    /// Seed of the first means: the same seed gives the same groups.
    pub seed: u64,
    /// Starts, of which the best counts.
    pub starts: usize,
    /// Rounds of a start, at most. One ends before that when no vector changes its group.
    pub max_rounds: usize,
}

impl KMeansOptions {
    /// So many groups, with the defaults: 10 starts of seed 0, of at most 300 rounds each.
    #[must_use]
    pub fn new(clusters: usize) -> Self {
        KMeansOptions {
            clusters,
            seed: 0,
            starts: 10,
            max_rounds: 300,
        }
    }

    /// With this seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// With this many starts (0 counts as one).
    #[must_use]
    pub fn with_starts(mut self, starts: usize) -> Self {
        self.starts = starts;
        self
    }

    /// With at most this many rounds a start.
    #[must_use]
    pub fn with_max_rounds(mut self, rounds: usize) -> Self {
        self.max_rounds = rounds;
        self
    }
}

/// Groups around means.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Clusters {
    /// The group of each vector, from 0.
    pub labels: Vec<usize>,
    /// The mean of each group.
    pub means: Vec<Vec<f64>>,
    /// The sum of the squared distances of all vectors to the means of their groups.
    pub inertia: f64,
}

/// Sorts vectors into groups so that each is in that of the nearest mean (Lloyd 1982), beginning with vectors that lie far from
/// each other (k-means++, Arthur and Vassilvitskii 2007).
///
/// # Errors
/// [`SearchError::Cluster`] for no groups, more groups than vectors, vectors of several lengths, or with what is no number.
pub fn k_means(
    vectors: &[impl AsRef<[f32]>],
    options: &KMeansOptions,
) -> Result<Clusters, SearchError> {
    check(vectors)?;
    if !(1..=vectors.len()).contains(&options.clusters) {
        let reason = format!(
            "{} groups of {} vectors cannot be made: ask for 1 to {}",
            options.clusters,
            vectors.len(),
            vectors.len()
        );
        return Err(SearchError::Cluster(reason));
    }
    let vectors: Vec<&[f32]> = vectors.iter().map(AsRef::as_ref).collect();
    let mut random = Random::new(options.seed);
    let mut best = start(&vectors, options, &mut random);
    for _ in 1..options.starts {
        let other = start(&vectors, options, &mut random);
        if other.inertia < best.inertia {
            best = other;
        }
    }
    Ok(best)
}

fn start(vectors: &[&[f32]], options: &KMeansOptions, random: &mut Random) -> Clusters {
    let mut means = first_means(vectors, options.clusters, random);
    let mut labels = vec![usize::MAX; vectors.len()];
    for _ in 0..options.max_rounds {
        let before = labels.clone();
        assign(vectors, &means, &mut labels);
        if labels == before {
            break;
        }
        means = means_of(vectors, &labels, &means);
    }
    let inertia = assign(vectors, &means, &mut labels);
    Clusters {
        labels,
        means,
        inertia,
    }
}

/// Vectors, each drawn with a chance that grows with the square of its distance to those before.
fn first_means(vectors: &[&[f32]], count: usize, random: &mut Random) -> Vec<Vec<f64>> {
    let as_mean =
        |index: usize| -> Vec<f64> { vectors[index].iter().copied().map(f64::from).collect() };
    let uniform = (random.unit() * vectors.len() as f64) as usize;
    let mut means = vec![as_mean(uniform.min(vectors.len() - 1))];
    let mut distances = vec![f64::INFINITY; vectors.len()];
    while means.len() < count {
        let newest = &means[means.len() - 1];
        for (distance, vector) in distances.iter_mut().zip(vectors) {
            *distance = distance.min(squared_distance(newest.iter().copied(), vector));
        }
        let mut left = random.unit() * distances.iter().sum::<f64>();
        let drawn = distances.iter().position(|distance| {
            left -= distance;
            left < 0.0
        });
        // Where all distances are 0, there are fewer vectors that differ than groups: any will do.
        means.push(as_mean(drawn.unwrap_or(means.len() % vectors.len())));
    }
    means
}

/// Gives each vector the group of the nearest mean. Returns the sum of the squared distances.
fn assign(vectors: &[&[f32]], means: &[Vec<f64>], labels: &mut [usize]) -> f64 {
    let mut inertia = 0.0;
    for (vector, label) in vectors.iter().zip(labels) {
        let distances = means
            .iter()
            .map(|mean| squared_distance(mean.iter().copied(), vector));
        let nearest = distances.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((group, distance)) = nearest {
            *label = group;
            inertia += distance;
        }
    }
    inertia
}

/// The means of the groups; a group without vectors keeps its old one.
fn means_of(vectors: &[&[f32]], labels: &[usize], old: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut sums: Vec<Vec<f64>> = old.iter().map(|mean| vec![0.0; mean.len()]).collect();
    let mut counts = vec![0_usize; old.len()];
    for (vector, label) in vectors.iter().zip(labels) {
        counts[*label] += 1;
        for (sum, number) in sums[*label].iter_mut().zip(*vector) {
            *sum += f64::from(*number);
        }
    }
    for ((sum, count), old) in sums.iter_mut().zip(counts).zip(old) {
        match count {
            0 => sum.clone_from(old),
            count => sum.iter_mut().for_each(|sum| *sum /= count as f64),
        }
    }
    sums
}
