//! Which images belong to which captions, and which queries depend on each other.

use crate::error::{Error, Result};

/// The pairs of captions and images of a retrieval set: several captions an image, and several images a caption.
#[derive(Clone, Debug, PartialEq)]
pub struct Relevance {
    /// For each caption its images.
    pub images_of: Vec<Vec<usize>>,
    /// For each image its captions.
    pub captions_of: Vec<Vec<usize>>,
    /// For each image the number of its cluster: images that share a caption are in one, and so are their captions.
    cluster_of: Vec<usize>,
}

impl Relevance {
    /// The pairs that `images_of` lists for each caption, among `images` images.
    pub fn new(images: usize, images_of: Vec<Vec<usize>>) -> Result<Self> {
        let mut captions_of = vec![Vec::new(); images];
        let mut cluster_of: Vec<usize> = (0..images).collect();
        for (caption, own) in images_of.iter().enumerate() {
            for &image in own {
                let captions = captions_of.get_mut(image);
                captions
                    .ok_or_else(|| Error::new(format!("caption {caption} names image {image} of {images}")))?
                    .push(caption);
                let (a, b) = (root(&mut cluster_of, own[0]), root(&mut cluster_of, image));
                cluster_of[a.max(b)] = a.min(b);
            }
        }
        for image in 0..images {
            cluster_of[image] = root(&mut cluster_of, image);
        }
        let (lone_caption, lone_image) =
            (images_of.iter().position(Vec::is_empty), captions_of.iter().position(Vec::is_empty));
        match (lone_caption, lone_image) {
            (Some(caption), _) => Err(Error::new(format!("caption {caption} has no image"))),
            (_, Some(image)) => Err(Error::new(format!("image {image} has no caption"))),
            _ => Ok(Self { images_of, captions_of, cluster_of }),
        }
    }

    /// For each caption the number of its cluster.
    pub fn caption_clusters(&self) -> Vec<usize> {
        self.images_of.iter().map(|images| self.cluster_of[images[0]]).collect()
    }

    /// For each image the number of its cluster.
    pub fn image_clusters(&self) -> &[usize] {
        &self.cluster_of
    }
}

/// The lowest image that `image` is known to share a cluster with; shortens the way to it.
fn root(cluster_of: &mut [usize], mut image: usize) -> usize {
    while cluster_of[image] != image {
        cluster_of[image] = cluster_of[cluster_of[image]];
        image = cluster_of[image];
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_share_a_caption_are_one_cluster() -> Result<()> {
        let relevance = Relevance::new(5, vec![vec![0], vec![4, 1], vec![3], vec![2, 4], vec![0]])?;
        assert_eq!(relevance.captions_of, [vec![0, 4], vec![1], vec![3], vec![2], vec![1, 3]]);
        assert_eq!(relevance.image_clusters(), [0, 1, 1, 3, 1]);
        assert_eq!(relevance.caption_clusters(), [0, 1, 3, 1, 0]);
        for (images, images_of, part) in [
            (2, vec![vec![0], vec![2]], "caption 1 names image 2 of 2"),
            (2, vec![vec![0], vec![]], "caption 1 has no image"),
            (2, vec![vec![0]], "image 1 has no caption"),
        ] {
            let error = Relevance::new(images, images_of).expect_err(part);
            assert!(error.to_string().contains(part), "{error}");
        }
        Ok(())
    }
}
