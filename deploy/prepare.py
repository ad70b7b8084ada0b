"""Before the services start, and after every upgrade: makes the bucket, and Dagster's tables in Postgres or migrates them.

Running it again changes nothing. Endpoint, region and credentials come from the usual AWS environment variables.
"""

import os
import subprocess

import boto3
from botocore.exceptions import ClientError


def make_bucket(name: str) -> bool:
    """Makes the bucket if it is not there; returns whether it did.

    Raises:
        ClientError: it may not be made, or it belongs to someone else.
    """
    client = boto3.client("s3")
    try:
        client.head_bucket(Bucket=name)
    except ClientError as refusal:
        if refusal.response["Error"]["Code"] not in {"404", "NoSuchBucket"}:
            raise
        client.create_bucket(Bucket=name)
        return True
    return False


if __name__ == "__main__":
    bucket = os.environ["MECH_BUCKET"]
    print(f"bucket {bucket}: {'made' if make_bucket(bucket) else 'is there'}", flush=True)
    subprocess.run(["dagster", "instance", "migrate"], check=True)
